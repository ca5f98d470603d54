"""Reads that may block: nobody is left waiting for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from perdure import LeaseLost, StoreUnavailable
from perdure.runtime.reads import Reads
from perdure.stores.base import Store
from perdure.testing import Harness


class Distant:
    """A real store that says of itself that its reads may block, as a server's may."""

    reads_block = True

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.fixture
def answered() -> Iterator[threading.Event]:
    """Set once the server answers; in the end it does."""
    event = threading.Event()
    yield event
    event.set()


def make(harness: Harness) -> Reads:
    distant: object = Distant(harness.store)
    return Reads(distant)  # pyright: ignore[reportArgumentType]


async def test_what_a_thread_finds_is_given_on_the_loop(harness: Harness) -> None:
    reads = make(harness)

    assert await reads.wait(lambda _: threading.current_thread()) is not threading.current_thread()
    reads.stop()


async def test_the_error_of_a_read_is_raised_where_it_is_waited_for(harness: Harness) -> None:
    def fails(_: Store) -> None:
        raise StoreUnavailable("No answer.")

    reads = make(harness)

    with pytest.raises(StoreUnavailable, match="No answer"):
        await reads.wait(fails)
    reads.stop()


async def test_all_who_wait_hear_when_the_engine_stops_those_in_the_queue_too(
    harness: Harness, answered: threading.Event
) -> None:
    reads = make(harness)
    waiting = [asyncio.create_task(reads.wait(lambda _: answered.wait())) for _ in range(8)]
    await asyncio.sleep(0)

    reads.stop()
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)

    assert [type(error) for error in told] == [LeaseLost] * 8


async def test_a_read_asked_for_after_the_stop_is_answered_with_an_error(harness: Harness) -> None:
    reads = make(harness)
    reads.stop()

    with pytest.raises(LeaseLost, match="stopped"):
        await reads.wait(lambda _: 1)
