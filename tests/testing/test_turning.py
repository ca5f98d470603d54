"""Waiting until a loop has nothing left to do."""

from __future__ import annotations

import asyncio

from perdure.testing.clock import loop_turn
from perdure.testing.crashing.turning import until_idle, watched_turns


def never() -> bool:
    return False


async def turn_often(times: int, seen: list[int]) -> None:
    for turn in range(times):
        seen.append(turn)
        await asyncio.sleep(0)


async def test_all_that_is_ready_is_done_before_the_loop_counts_as_idle() -> None:
    seen: list[int] = []
    with watched_turns():
        task = asyncio.create_task(turn_often(100, seen))

        await until_idle(never)

    assert task.done()
    assert len(seen) == 100


async def test_it_waits_no_longer_once_it_is_enough() -> None:
    seen: list[int] = []
    with watched_turns():
        task = asyncio.create_task(turn_often(100, seen))

        await until_idle(lambda: len(seen) >= 5)

    assert len(seen) < 10
    task.cancel()


async def test_a_loop_that_never_rests_is_not_waited_for_for_ever() -> None:
    seen: list[int] = []
    with watched_turns():
        task = asyncio.create_task(turn_often(1 << 62, seen))

        await until_idle(never)

    assert len(seen) >= 100
    task.cancel()


async def test_what_a_thread_has_handed_over_is_done_first() -> None:
    seen: list[int] = []
    loop = asyncio.get_running_loop()
    with watched_turns():
        await loop.run_in_executor(None, loop.call_soon_threadsafe, seen.append, 1)

        await until_idle(never)

    assert seen == [1]


async def test_a_loop_that_cannot_tell_is_given_some_turns() -> None:
    seen: list[int] = []
    task = asyncio.create_task(turn_often(5, seen))

    await until_idle(never)

    assert task.done()


async def test_the_loop_is_left_as_it_was() -> None:
    with watched_turns():
        await loop_turn()

    await until_idle(never)
    assert "select" not in vars(asyncio.get_running_loop()._selector)  # type: ignore[attr-defined]
