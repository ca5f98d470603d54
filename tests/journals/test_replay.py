"""`replay`: an exported journal against the code as it stands."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    JournalMismatch,
    NonRetryable,
    NotDecodable,
    Signal,
    State,
    Workflow,
    WorkflowNotRegistered,
    step,
    workflow,
)
from perdure.journals.form import pretty, write_journal
from perdure.journals.reading import find_journal, load_journal
from perdure.journals.replayer import Replayer
from perdure.testing import Harness, replay
from perdure.testing.clock import START_MS

approval = Signal[str]("approval")
status = State[str]("status")
TICK = {"seq": 0, "kind": "tick", "key": "", "digest": 0, "at": "", "at_ms": 0}
charged: list[str] = []


class Refused(NonRetryable):
    pass


@step
async def charge(order: str, cents: int) -> str:
    charged.append(order)
    return f"receipt of {order}"


@step
async def check(order: str) -> None: ...


@workflow
async def checkout(order: str) -> str:
    status.set("charging")
    receipt = await charge(order, 100)
    async with asyncio.timeout(3_600):
        who = await approval.receive()
    if who == "nobody":
        raise Refused(f"{order} is refused")
    return f"{receipt} by {who}"


@workflow(name="checkout")
async def checks_first(order: str) -> str:
    await check(order)
    return await charge(order, 100)


@workflow(name="checkout")
async def charges_more(order: str) -> str:
    return await charge(order, 200)


@workflow(name="checkout")
async def says_more(order: str) -> str:
    receipt = await charge(order, 100)
    return f"{receipt}, approved by {await approval.receive()}"


@workflow(name="checkout")
async def waits_longer(order: str) -> str:
    receipt = await charge(order, 100)
    await approval.receive()
    return f"{receipt} by {await approval.receive()}"


@workflow(name="checkout")
async def raises_another(order: str) -> str:
    await charge(order, 100)
    raise Refused(f"{await approval.receive()} said no")


@pytest.fixture
async def t() -> AsyncIterator[Harness]:
    charged.clear()
    async with Harness() as harness:
        yield harness


async def exported(t: Harness, *, by: str | None = None) -> dict[str, Any]:
    """The journal of a checkout of order 17, which is approved if `by` is given."""
    run = await t.start(checkout("17"), id="17")
    await t.settle()
    if by is not None:
        await run.send(approval, by)
        await t.settle()
    journal: dict[str, Any] = json.loads(write_journal(find_journal(t.store, "17")))  # type: ignore[arg-type]
    return journal


async def test_a_run_that_waits_says_where_for_what_and_how_long(t: Harness) -> None:
    journal = await exported(t)

    replayed = replay(journal, checkout)

    assert (replayed.run_id, replayed.workflow, replayed.status) == ("17", "checkout", "running")
    assert replayed.records == 1
    assert replayed.states == {"status": "charging"}
    assert replayed.wake_at == datetime.fromtimestamp(START_MS / 1000, tz=UTC) + timedelta(hours=1)
    (line,) = replayed.stands_at.values()
    assert "test_replay.py" in line
    assert line.endswith("in checkout")


async def test_no_step_runs_and_nothing_is_written(t: Harness) -> None:
    journal = await exported(t, by="ann")
    charged.clear()
    commits = t.store.commits

    replay(journal, checkout)
    replay(journal, checkout)

    assert charged == []
    assert t.store.commits == commits


async def test_a_call_without_an_answer_is_told_with_its_line() -> None:
    @workflow
    async def charges_two() -> None:
        await asyncio.gather(charge("a", 1), charge("b", 2))

    journal = {
        "format": "perdure-journal", "version": 1, "redacted": [], "records": [], "children": [],
        "run": {
            "id": "17", "generation": 1, "workflow": "charges_two", "status": "running",
            "created_at": "2027-01-15T08:00:00.000Z", "created_at_ms": START_MS, "ended_at": None,
            "ended_at_ms": None, "deadline_ms": None, "python": "3.11", "seed": "00" * 16, "number": 1,
            "parent": None, "tags": {}, "input": {},
        },
    }  # fmt: skip

    replayed = replay(journal, charges_two)

    assert [(call.key, call.kind, call.text) for call in replayed.waits_for] == [
        ("0.1/0/charge", "step", "charge('a', 1)"),
        ("0.2/0/charge", "step", "charge('b', 2)"),
    ]
    assert all(call.line.endswith("in charges_two") for call in replayed.waits_for)


async def test_a_run_that_completed_gives_its_result(t: Harness) -> None:
    replayed = replay(await exported(t, by="ann"), checkout)

    assert replayed.status == "completed"
    assert replayed.result == "receipt of 17 by ann"


async def test_a_run_that_failed_gives_its_error(t: Harness) -> None:
    replayed = replay(await exported(t, by="nobody"), checkout)

    assert replayed.status == "failed"
    assert isinstance(replayed.error, Refused)


async def test_a_journal_comes_from_a_dict_bytes_or_a_file(t: Harness, tmp_path: Path) -> None:
    journal = await exported(t, by="ann")
    data = pretty(json.dumps(journal).encode())
    path = tmp_path / "17.json"
    path.write_bytes(data)

    found = [replay(source, checkout).result for source in (journal, data, path, str(path))]

    assert found == ["receipt of 17 by ann"] * 4


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (checks_first, r"recorded step 'charge' at '0/0/charge' .* but the code now asks for 'check'"),
        (charges_more, r"but the code now calls it with other arguments: charge\('17', 200\)"),
        (says_more, 'with "receipt of 17 by ann", but the code now returns .*approved by ann'),
        (waits_longer, r"ended as completed .* but the code now waits \(.*in waits_longer\)"),
        (raises_another, "ended as completed .* but the code now ends as failed: Refused: ann said no"),
    ],
    ids=["another step", "other arguments", "another result", "no end yet", "another end"],
)  # fmt: skip
async def test_code_that_comes_to_something_else_is_refused(
    t: Harness, code: Workflow[Any, Any], says: str
) -> None:
    journal = await exported(t, by="ann")

    with pytest.raises(JournalMismatch, match=says):
        replay(journal, code)


async def test_another_error_than_the_recorded_one_is_refused(t: Harness) -> None:
    journal = await exported(t, by="nobody")

    with pytest.raises(
        JournalMismatch, match="Refused: 17 is refused, but the code now raises Refused: nobody said"
    ):
        replay(journal, raises_another)


async def test_the_line_in_a_mismatch_is_of_the_users_code_and_not_of_the_library(t: Harness) -> None:
    journal = await exported(t, by="ann")

    @workflow(name="checkout")
    async def receives_first(order: str) -> str:
        await approval.receive()
        return await charge(order, 100)

    with pytest.raises(JournalMismatch, match=r"\(\S*test_replay.py:\d+, in receives_first\)"):
        replay(journal, receives_first)


async def test_without_a_workflow_the_one_of_the_recorded_name_is_taken(t: Harness) -> None:
    @workflow
    async def the_only_one_of_this_name(order: str) -> str:
        return await charge(order, 1)

    await t.run(the_only_one_of_this_name("18"), id="18")
    journal = write_journal(find_journal(t.store, "18"))  # type: ignore[arg-type]

    assert replay(journal).result == "receipt of 18"


async def test_a_workflow_that_is_not_there_is_said_by_name(t: Harness) -> None:
    journal = await exported(t)
    # Not a name that any other test gives: what that defined may not be collected yet.
    journal["run"]["workflow"] = "made nowhere"

    with pytest.raises(WorkflowNotRegistered, match="'made nowhere', which this process does not define"):
        replay(journal)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "this is no exported journal"),
        ({"version": 2}, "it is of version 2 of the form, and this release reads up to 1"),
        ({"records": [{**TICK, "seq": 1}]}, "the records must be whole and in their order"),
        ({"records": [{**TICK, "kind": "tock"}]}, "TOCK"),
        ({"run": {}}, "does not keep to the form"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_is_no_journal_is_refused_with_the_reason(
    t: Harness, change: dict[str, Any], says: str
) -> None:
    journal = await exported(t)

    with pytest.raises(NotDecodable, match=says):
        replay({**journal, **change})


def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NotDecodable, match=r"17.json: there is no such file"):
        replay(tmp_path / "17.json")


async def test_a_replay_that_is_refused_leaves_nothing_for_the_collector(t: Harness) -> None:
    journal = load_journal(await exported(t, by="ann"))
    gc.collect()
    gc.disable()

    for _ in range(10):
        replayer = Replayer(journal.run, journal.records, checks_first)
        replayer.begin()
        with suppress(JournalMismatch):
            replayer.deliver(journal.records)
        replayer.close()
    del replayer

    left = gc.collect()
    gc.enable()
    assert left < 10
