"""`explore` tries every order, once, and the same each time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from math import comb, factorial
from pathlib import Path as FilePath

import pytest

from perdure import step, workflow
from perdure.testing.events import Cancel, Send
from perdure.testing.explore import ScheduleImpossible, explore
from perdure.testing.exploring.path import Path
from perdure.testing.exploring.search import Walks
from perdure.testing.source import SeededSource

from .orders import Schedules, all_at_once, chains, take_words, two_in_a_row, word, work

# -- every order, once ---------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
async def test_independent_steps_end_in_each_of_n_factorial_orders(steps: int) -> None:
    orders = Schedules()

    found = await explore(all_at_once(steps), check=orders)

    assert found.schedules == factorial(steps) == len(set(orders.seen))
    assert found.complete
    assert found.longest == steps


@pytest.mark.parametrize("lengths", [(1, 3), (2, 2), (3, 3), (2, 4)])
async def test_two_chains_are_interleaved_in_every_way(lengths: tuple[int, int]) -> None:
    orders = Schedules()

    found = await explore(chains(list(lengths)), check=orders)

    assert found.schedules == comb(sum(lengths), lengths[0]) == len(set(orders.seen))
    assert found.complete


@step(worker="gpu")
async def render(frame: int) -> int:
    return frame


@workflow
async def all_rendered() -> list[int]:
    return await asyncio.gather(*(render(frame) for frame in range(3)))


async def test_steps_that_ask_for_a_worker_end_in_any_order_too() -> None:
    found = await explore(all_rendered())

    assert found.schedules == factorial(3)
    assert found.complete


async def test_three_chains_are_interleaved_in_every_way() -> None:
    found = await explore(chains([2, 2, 2]))

    assert found.schedules == factorial(6) // 2**3
    assert found.complete


async def test_signals_of_several_senders_come_in_every_order() -> None:
    orders = Schedules()

    found = await explore(take_words(3), events=[Send(word, n) for n in range(3)], check=orders)

    assert found.schedules == factorial(3)
    assert {tuple(result) for result in orders.results} == {
        (0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0),
    }  # fmt: skip


async def test_signals_in_a_row_of_their_own_come_in_its_order() -> None:
    orders = Schedules()

    found = await explore(take_words(3), events=[[Send(word, 1), Send(word, 2)], Send(word, 9)], check=orders)

    assert found.schedules == comb(3, 1)
    assert {tuple(result) for result in orders.results} == {(1, 2, 9), (1, 9, 2), (9, 1, 2)}


@workflow
async def sleeps_long() -> None:
    await asyncio.sleep(31_536_000.25)


async def test_a_timer_is_named_by_the_seconds_since_the_start_however_many() -> None:
    orders = Schedules()

    await explore(sleeps_long(), check=orders)

    assert orders.seen == [("timer 31536000.25s",)]


@workflow
async def two_sleeps_beside_a_step() -> None:
    await asyncio.gather(work(1), chain_of_sleeps())


async def chain_of_sleeps() -> None:
    await asyncio.sleep(1)
    await asyncio.sleep(86_400)


async def test_time_may_pass_at_any_moment() -> None:
    orders = Schedules()

    found = await explore(two_sleeps_beside_a_step(), check=orders)

    assert found.complete
    assert set(orders.seen) == {
        ("work done", "timer 1s", "timer 86401s"),
        ("timer 1s", "work done", "timer 86401s"),
        ("timer 1s", "timer 86401s", "work done"),
    }


async def test_a_cancel_may_come_before_each_event_and_what_it_interrupts_may_have_acted() -> None:
    orders = Schedules()

    found = await explore(two_in_a_row(), events=[Cancel()], check=orders)

    assert found.complete
    assert set(orders.seen) == {
        ("work done", "work 2 done"),
        ("cancel", "work did not act"),
        ("cancel", "work acted"),
        ("work done", "cancel", "work 2 did not act"),
        ("work done", "cancel", "work 2 acted"),
    }


async def test_the_default_order_comes_first_and_then_the_least_unusual_ones() -> None:
    orders = Schedules()

    await explore(all_at_once(3), check=orders)

    assert orders.seen[0] == ("work done", "work 2 done", "work 3 done")
    assert orders.seen[-1] == ("work 3 done", "work 2 done", "work done")


# -- bounds --------------------------------------------------------------------------------------


async def test_what_is_more_than_the_bound_is_left_out_and_said_so() -> None:
    found = await explore(all_at_once(6), schedules=100)

    assert found.schedules == 100
    assert not found.complete


async def test_a_bound_that_just_suffices_is_complete() -> None:
    exact = await explore(all_at_once(4), schedules=24)
    short = await explore(all_at_once(4), schedules=23)

    assert exact.complete
    assert not short.complete


async def test_beyond_the_depth_a_schedule_keeps_to_the_default_order() -> None:
    orders = Schedules()

    found = await explore(all_at_once(5), depth=2, check=orders)

    assert found.schedules == 5 * 4
    assert not found.complete
    default = orders.seen[0]
    assert all(list(seen[2:]) == [name for name in default if name in seen[2:]] for seen in orders.seen)


async def test_half_of_a_bound_that_does_not_suffice_goes_to_random_walks() -> None:
    orders = Schedules()

    await explore(all_at_once(7), schedules=200, check=orders)

    default = orders.seen[0]
    usual = [seen for seen in orders.seen if sum(a != b for a, b in zip(seen, default, strict=True)) <= 3]
    assert len(set(orders.seen[:100])) == 100
    assert len(usual) < 120, "random walks are no neighbours of the default order"


def test_in_a_random_walk_what_may_come_at_any_moment_often_comes_late() -> None:
    walks = Walks(SeededSource(1).draw, depth=100)

    places = [cancelled_at(walks.next(), steps=20) for _ in range(200)]

    assert sum(place == 0 for place in places) in range(80, 120), "half of them before the first step"
    assert sum(place >= 10 for place in places) in range(10, 30), "one in eleven; by coin tosses it were none"


def cancelled_at(walk: Path, *, steps: int) -> int:
    """After how many of the steps of a chain a walk cancels."""
    for place in range(steps):
        if walk.choose([f"step {place} done", "cancel"]):
            return place
    return steps


# -- the same again ------------------------------------------------------------------------------


async def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    first = await explore(all_at_once(6), schedules=50, seed=3)
    again = await explore(all_at_once(6), schedules=50, seed=3)
    other = await explore(all_at_once(6), schedules=50, seed=4)

    assert first == again
    assert first.trace != other.trace


@workflow
async def drops_a_word() -> None:
    await word.receive()


async def test_the_trace_tells_of_a_value_that_differs_although_nobody_looks_at_it() -> None:
    first = await explore(drops_a_word(), events=[Send(word, 1)])
    other = await explore(drops_a_word(), events=[Send(word, 2)])

    assert first.trace != other.trace


def test_the_trace_is_the_same_in_every_process(checkout: FilePath) -> None:
    program = (
        "import asyncio; from perdure.testing import Ask, Cancel, Send, explore\n"
        "from tests.testing.orders import add, everything, word\n"
        "events = [Send(word, 1), Ask(add, 2), Cancel()]\n"
        "found = asyncio.run(explore(everything(), events=events, schedules=300, seed=7))\n"
        "print(found.trace)"
    )

    traces = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=checkout,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4711")
    }

    assert len(traces) == 1


# -- one schedule --------------------------------------------------------------------------------


async def test_one_schedule_is_played_by_its_names_and_then_the_default_order() -> None:
    orders = Schedules()

    found = await explore(all_at_once(3), schedule="work 3 done", check=orders)

    assert orders.seen == [("work 3 done", "work done", "work 2 done")]
    assert found.schedules == 1
    assert not found.complete


async def test_a_schedule_that_cannot_happen_is_refused_with_what_could() -> None:
    with pytest.raises(ScheduleImpossible, match=r"choice 2 .*'refund done'.*'work 2 done'"):
        await explore(all_at_once(2), schedule="work done, refund done")


async def test_a_schedule_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ScheduleImpossible, match="nothing more"):
        await explore(all_at_once(1), schedule="work done, work done")


@step(name="work 2")
async def named_like_the_second() -> int:
    return 5


@step(name="a, b")
async def named_with_a_comma() -> int:
    return 6


@workflow
async def misnamed() -> list[int]:
    return await asyncio.gather(work(1), work(2), named_like_the_second(), named_with_a_comma())


async def test_every_event_has_a_name_of_its_own_that_a_schedule_can_hold() -> None:
    orders = Schedules()

    found = await explore(misnamed(), check=orders)
    await explore(misnamed(), schedule=", ".join(orders.seen[-1]), check=orders)

    assert found.schedules == factorial(4) == len(set(orders.seen))
    assert orders.seen[-1] == orders.seen[-2]
