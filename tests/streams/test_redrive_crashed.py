"""A redrive that is crashed at any commit repeats at most what was in hand, and loses nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from perdure import Event, NonRetryable, Stream
from perdure.core.positions import place_at
from perdure.stores.base import Batch
from perdure.testing import Harness
from tests.streams.conservation import accounts
from tests.streams.events import Paid, Placed

Orders = Stream[Placed | Paid]
CONCURRENCY = 2


class Crash:
    """Kills the store at the n-th commit, before it is written or after."""

    def __init__(self, harness: Harness, number: int, *, before: bool) -> None:
        self._left = number
        self._store = harness.store
        if before:
            self._store.before_commit = self._count
        else:
            self._store.after_commit = self._count

    def _count(self, batch: Batch) -> None:
        self._left -= 1
        if self._left == 0:
            self._store.kill()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, 13))
async def test_a_crash_at_a_commit_of_a_redrive_repeats_at_most_what_was_in_hand(
    harness: Harness, orders: Orders, commit: int, before: bool
) -> None:
    handled, bad = list[tuple[str, int, int]](), True

    @orders.on(concurrency=CONCURRENCY)
    async def note(event: Event[Placed]) -> None:
        if bad and event.data.amount in (0, 1):
            raise NonRetryable("no")
        await asyncio.sleep(0)
        handled.append((event.key, event.data.amount, place_at(event.position)))

    await harness.append_batch(orders, [Placed(f"{n % 3}", n) for n in range(12)])
    await harness.settle()
    bad = False
    await harness.subscription(note).redrive()
    await harness.append(orders, Placed("0", 12))
    Crash(harness, commit, before=before)
    for _ in range(3):
        await harness.settle()
    await harness.crash()
    while (await harness.subscription(note).status()).due:
        await harness.settle()
    await harness.settle()

    found = accounts(harness.store.store, note, handled={position for *_, position in handled})
    assert (len(found.done), found.parked, found.pending) == (13, set(), set())
    times = Counter(amount for _, amount, _ in handled)
    assert sum(times.values()) - len(times) <= CONCURRENCY + 1
    for key in "012":
        in_order = list(dict.fromkeys(amount for one, amount, _ in handled if one == key))
        assert in_order == sorted(in_order)
