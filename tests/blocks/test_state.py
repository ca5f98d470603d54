"""State: what a run publishes, readable from anywhere."""

from __future__ import annotations

import asyncio

import pytest

from perdure import NotSerialisable, OutsideRun, Signal, State, step, workflow
from perdure.testing import Harness

status = State[str]("status")
go_on = Signal[str]("go on")


@step
async def looks_up(text: str) -> str:
    return text


@workflow
async def follows_orders() -> str:
    status.set("waiting")
    while (order := await go_on.receive()) != "end":
        status.set(await looks_up(order))
    status.set("ended")
    return "done"


async def test_a_state_has_its_default_until_it_is_set(harness: Harness) -> None:
    @workflow
    async def publishes_nothing() -> None: ...

    run = await harness.engine.start(publishes_nothing())

    assert await run.state(status) is None
    assert await run.state(status, "unknown") == "unknown"


async def test_the_latest_value_is_read_also_after_a_restart_and_after_the_end(harness: Harness) -> None:
    run = await harness.engine.start(follows_orders(), id="one")
    await run.send(go_on, "packing")
    await harness.settle()
    before = await run.state(status)
    await harness.restart()
    run = await harness.engine.get("one", follows_orders)
    after = await run.state(status)
    await run.send(go_on, "end")
    await run.result()

    assert (before, after, await run.state(status)) == ("packing", "packing", "ended")


async def test_of_several_values_at_once_the_last_wins(harness: Harness) -> None:
    @workflow
    async def changes_its_mind() -> None:
        for text in ("one", "two", "three"):
            status.set(text)
        await asyncio.sleep(60)

    await harness.engine.start(changes_its_mind(), id="one")
    await harness.settle()
    await harness.crash()
    await harness.settle()

    run = await harness.engine.get("one")
    assert await run.state(status) == "three"


async def test_a_watcher_sees_the_latest_value_and_stops_at_the_end(harness: Harness) -> None:
    run = await harness.engine.start(follows_orders())
    await harness.settle()
    seen: list[str] = []

    async for value in run.watch(status):
        seen.append(value)
        await run.send(
            go_on, {"waiting": "packing", "packing": "end"}.get(value, "end")
        ) if value != "ended" else None

    assert seen[0] == "waiting"
    assert seen[-1] == "ended"
    assert seen == [text for text in ("waiting", "packing", "ended") if text in seen]


async def test_a_value_of_the_wrong_type_is_refused_in_the_run(harness: Harness) -> None:
    @workflow
    async def publishes_a_number() -> str:
        try:
            status.set(7)  # type: ignore[arg-type]
        except NotSerialisable as error:
            return str(error)
        return ""

    assert "state 'status'" in await harness.engine.run(publishes_a_number())


async def test_setting_outside_a_run_is_refused() -> None:
    with pytest.raises(OutsideRun, match="set"):
        status.set("nowhere")
