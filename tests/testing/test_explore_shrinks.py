"""A failing schedule is made short, and told so that a person sees what to do."""

from __future__ import annotations

import asyncio

import pytest

from perdure import NonRetryable, RunStatus, step, workflow
from perdure.testing.explore import Explored, ScheduleFailed, explore
from perdure.testing.exploring.path import Path
from perdure.testing.exploring.plan import Plan
from perdure.testing.exploring.play import play
from perdure.testing.exploring.shrink import shrink

from .test_explore_finds import STOCK, find, sells

# -- a rare one, for random walks and shrinking ---------------------------------------------------


@step
async def part(number: int) -> int:
    return number


class Reversed(NonRetryable):
    pass


@workflow
async def fails_when_three_come_late(parts: int) -> None:
    done: list[int] = []

    async def do(number: int) -> None:
        done.append(await part(number))

    await asyncio.gather(*(do(number) for number in range(parts)))
    if done.index(0) > done.index(3) and done.index(1) > done.index(4) and done.index(2) > done.index(5):
        raise Reversed(str(done))


async def test_what_random_walks_find_is_shrunk_to_three_departures() -> None:
    schedule, found_in = await find(fails_when_three_come_late(9), schedules=200)

    assert found_in > 100, "the least unusual half does not hold it"
    assert schedule == "part 4 done, part 5 done, part 6 done"


async def test_shrinking_does_not_slip_to_another_mistake_that_is_easier_to_come_by() -> None:
    def check(explored: Explored[None, None]) -> None:
        if explored.schedule[:2] == ("part 3 done", "part 2 done"):
            raise ValueError("this one")
        if explored.schedule[0] == "part 2 done":
            raise ValueError("another one")

    plan = Plan(in_parts(3), (), None, None, check, None, (), False, (), 100, 0)
    found = await play(plan, Path(["part 3 done", "part 2 done"], depth=100))

    shortest = await shrink(plan, found)

    assert shortest.path.needed == ["part 3 done", "part 2 done"]


@workflow
async def in_parts(parts: int) -> None:
    await asyncio.gather(*(part(number) for number in range(parts)))


async def test_the_message_shows_what_is_wrong_the_order_the_reproduction_and_the_journal() -> None:
    with pytest.raises(ScheduleFailed) as caught:
        await explore(sells(), **STOCK)

    lines = str(caught.value).splitlines()
    assert lines[0] == "`check` does not hold: AssertionError: reserved and never released"
    assert lines[2] == "So it comes about in sells():"
    assert lines[4].split() == ["reserve", "done", "reserve()", "→", "None"]
    assert lines[5].split() == ["cancel"]
    assert "    schedule='reserve done, cancel'" in lines
    assert lines[lines.index("The journal:") + 2 :] == [
        "      0         0s  step          0/0/reserve  null",
        "      1         0s  cancel        cancel",
    ]
    assert isinstance(caught.value.__cause__, AssertionError)
    assert caught.value.explored.status is RunStatus.CANCELLED
