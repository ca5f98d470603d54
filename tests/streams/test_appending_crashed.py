"""A workflow that appends is crashed everywhere: its events are there exactly once."""

from __future__ import annotations

from dataclasses import dataclass

from perdure import Appended, Stream, step, step_info, workflow
from perdure.testing import crash_everywhere


@dataclass(frozen=True)
class Crossed:
    river: str


crossings: Stream[Crossed] = Stream("crossings", Crossed, key=lambda one: one.river)


@step
async def looks(river: str) -> str:
    return river


@step(transaction=True)
def rivers() -> list[str]:
    rows = step_info().connection.execute("SELECT key FROM event ORDER BY pos").fetchall()
    return [key for (key,) in rows]


@workflow
async def crosses_rivers() -> list[str]:
    await crossings.append(Crossed(await looks("Elbe")))
    both: list[Appended] = await crossings.append_batch([Crossed("Oder"), Crossed("Weser")])
    named = await crossings.append(Crossed("Rhine"), id="the Rhine")
    again = await crossings.append(Crossed("Rhine"), id="the Rhine", source="another")
    assert both[0].position < both[1].position < named.position < again.position
    return await rivers()


async def test_each_event_is_there_once_and_in_order_wherever_its_run_is_crashed() -> None:
    crashes = await crash_everywhere(crosses_rivers(), pairs=True)

    assert crashes.runs > 50
    assert crashes.compared


async def test_what_the_run_without_a_crash_has_written_is_what_is_compared() -> None:
    found: list[list[str]] = []

    await crash_everywhere(crosses_rivers(), check=lambda crashed: found.append(crashed.result))

    assert set(map(tuple, found)) == {("Elbe", "Oder", "Weser", "Rhine", "Rhine")}
