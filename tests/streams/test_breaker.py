"""An outage suspends a handler instead of emptying its stream into the parked events."""

from __future__ import annotations

import logging

import pytest

from perdure import Event, NonRetryable, Retry, Stream
from perdure.runtime.breaker import Breaker
from perdure.testing import Harness
from tests.streams.events import Paid, Placed, parked

Orders = Stream[Placed | Paid]


def noted(*ends: int) -> Breaker:
    breaker = Breaker()
    for position in ends:
        breaker.note(position, failed=position > 0)
    return breaker


@pytest.mark.parametrize(
    ("ends", "is_tripped"),
    [
        ([*range(1, 20)], False),  # fewer than twenty
        ([*range(1, 21)], True),
        ([0, *range(1, 11)] * 2, True),
        ([0] * 10 + [*range(1, 11)], False),  # half, and not more
        ([*range(1, 41), *[0] * 25], False),  # fifty count: twenty-five failed
        ([*range(1, 41), *[0] * 24], True),
        ([7] * 40, False),  # one event is no outage
        ([7, 8] * 20, False),
        ([7, 8, 9] * 10, True),
    ],
)
def test_most_of_the_last_attempts_must_fail_and_of_several_events(ends: list[int], is_tripped: bool) -> None:
    assert noted(*ends).is_tripped is is_tripped


async def test_an_outage_suspends_the_handler_and_parks_nothing(
    harness: Harness, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    is_out, attempts, done = True, list[tuple[int, int]](), list[int]()

    @orders.on(retry=Retry(attempts=3, delay=1, jitter=False))
    async def note(event: Event[Placed]) -> None:
        attempts.append((harness.clock.now_ms(), event.data.amount))
        if is_out:
            raise ConnectionError("the bank does not answer")
        done.append(event.data.amount)

    with caplog.at_level(logging.WARNING, "perdure"):
        await harness.append_batch(orders, [Placed(f"{n}", n) for n in range(100)])
        await harness.settle()
        suspended = await harness.subscription(note).status()
        before = len(attempts)
        await harness.advance(29)
        still = len(attempts)
        await harness.advance(61)
        probes = len(attempts) - still
        is_out = False
        await harness.advance(30)
        await harness.settle()

    assert suspended.status == "suspended"
    assert "attempts failed, the last with ConnectionError('the bank does not answer')" in suspended.reason
    assert 20 <= before == still <= 60
    assert probes == 3
    assert sorted(done) == list(range(100))
    assert (await harness.subscription(note).status()).status == "active"
    assert await parked(harness, orders.name, note.name) == []
    assert len([one for one in caplog.messages if "is suspended" in one]) == 1


async def test_what_was_tried_in_an_outage_does_not_count_against_the_events(
    harness: Harness, orders: Orders
) -> None:
    is_out, again, done = True, set[int](), list[int]()

    @orders.on(retry=Retry(attempts=2, delay=5, jitter=False))
    async def note(event: Event[Placed]) -> None:
        if is_out or (event.data.amount < 5 and event.data.amount not in again):
            if not is_out:
                again.add(event.data.amount)  # once more, when the outage is over
            raise ConnectionError("no")
        done.append(event.data.amount)

    await harness.append_batch(orders, [Placed(f"{n}", n) for n in range(25)])
    await harness.advance(60)
    is_out = False
    await harness.advance(60)

    assert await parked(harness, orders.name, note.name) == []
    assert (sorted(done), again) == (list(range(25)), set(range(5)))


async def test_probes_take_turns_so_that_a_bad_event_does_not_suspend_for_ever(
    harness: Harness, orders: Orders
) -> None:
    bad, done = True, list[int]()

    @orders.on(retry=Retry(attempts=100, delay=1, jitter=False))
    async def note(event: Event[Placed]) -> None:
        if event.data.amount < 5 or bad:
            raise ConnectionError("no")
        done.append(event.data.amount)

    await harness.append_batch(orders, [Placed(f"{n}", n) for n in range(30)])
    await harness.settle()
    bad = False
    await harness.advance(minutes=4)

    assert sorted(done) == list(range(5, 30))
    assert note.name == "note"


async def test_errors_for_good_are_no_outage(harness: Harness, orders: Orders) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None:
        raise NonRetryable("no")

    await harness.append_batch(orders, [Placed(f"{n}", n) for n in range(60)])
    await harness.settle()

    assert len(await parked(harness, orders.name, note.name)) == 60
    assert (await harness.subscription(note).status()).status == "active"


async def test_it_stays_suspended_over_a_restart_and_a_person_may_resume_it(
    harness: Harness, orders: Orders
) -> None:
    is_out, attempts = True, list[int]()

    @orders.on(retry=Retry(delay=1))
    async def note(event: Event[Placed]) -> None:
        attempts.append(event.data.amount)
        if is_out:
            raise ConnectionError("no")

    await harness.append_batch(orders, [Placed(f"{n}", n) for n in range(40)])
    await harness.settle()
    attempts.clear()
    await harness.restart()
    await harness.settle()
    after_restart = len(attempts)
    is_out = False
    await harness.subscription(note).resume()
    await harness.until(lambda: len(attempts) == 40)
    await harness.settle()

    assert after_restart == 0
    assert await parked(harness, orders.name, note.name) == []
