"""How far handlers are behind, by the clock and by Burrow's rules."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import (
    Client,
    Event,
    Gauge,
    Lag,
    LagStatus,
    LaneLag,
    Retry,
    Stream,
    SubscriptionNotFound,
    gauges,
)
from perdure.core.events import LanePast
from perdure.core.standing import LaneStand
from perdure.streaming.lagging import status_of
from perdure.testing import Harness
from tests.streams.events import Paid, Placed

SECOND = 1_000
MINUTE = 60_000


def stand(
    *past: tuple[int, int, int], cursor: int = 100, behind: int = 5, oldest_at_ms: int = 0
) -> LaneStand:
    """A lane with these marks: second, cursor, places behind."""
    history = tuple(LanePast(at * SECOND, where, left, 0) for at, where, left in past)
    return LaneStand(0, cursor, history, "w", behind, oldest_at_ms if behind else None, oldest_at_ms)


@pytest.mark.parametrize(
    ("lane", "now_s", "status"),
    [
        pytest.param(stand(behind=0), 10**6, LagStatus.OK, id="nothing to do"),
        pytest.param(stand(), 30, LagStatus.OK, id="nobody has come yet"),
        pytest.param(stand(), 31, LagStatus.STOP, id="nobody came"),
        pytest.param(stand((0, 9, 9), (20, 100, 9)), 50, LagStatus.OK, id="silent, not for long"),
        pytest.param(stand((0, 9, 9), (20, 100, 9)), 51, LagStatus.STOP, id="silent for too long"),
        pytest.param(
            stand((0, 9, 9), (100, 100, 9)), 200, LagStatus.OK, id="silent for no longer than its marks took"
        ),
        pytest.param(stand((0, 9, 9), (100, 100, 9)), 201, LagStatus.STOP, id="silent for longer than those"),
        pytest.param(
            stand((0, 9, 9), (9_000, 100, 9)), 9_301, LagStatus.STOP, id="never silent for five minutes"
        ),
        pytest.param(
            stand((0, 100, 0), oldest_at_ms=1_000 * SECOND), 1_030, LagStatus.OK, id="there was nothing to do"
        ),
        pytest.param(stand((0, 200, 0), (1, 50, 99), cursor=90), 2, LagStatus.REWIND, id="sent back"),
        pytest.param(stand((0, 200, 0), (1, 50, 9), cursor=200), 2, LagStatus.OK, id="back where it was"),
        pytest.param(stand(*[(n, 100, 9 + n) for n in range(10)]), 10, LagStatus.STALL, id="stalled"),
        pytest.param(stand(*[(n, 100, 9 + n) for n in range(9)]), 10, LagStatus.OK, id="but nine marks"),
        pytest.param(
            stand(*[(n, 100, n) for n in range(10)]), 10, LagStatus.OK, id="had done all, of late"
        ),
        pytest.param(
            stand(*[(n, 91 + n, 9 + n) for n in range(10)]), 10, LagStatus.WARN, id="falls behind"
        ),
        pytest.param(
            stand(*[(n, 91 + n, 9) for n in range(10)]), 10, LagStatus.WARN, id="does not come nearer"
        ),
        pytest.param(
            stand(*[(n, 91 + n, 99 - n) for n in range(10)]), 10, LagStatus.OK, id="comes nearer"
        ),
    ],
)  # fmt: skip
def test_the_status_is_burrows(lane: LaneStand, now_s: int, status: LagStatus) -> None:
    assert status_of(lane, now_ms=now_s * SECOND) is status


def test_a_join_that_is_at_its_second_stream_does_not_stall() -> None:
    lane = stand(*[(n, 100, 19 - n) for n in range(10)])

    found = status_of(lane, now_ms=10 * SECOND), status_of(lane, now_ms=10 * SECOND, is_join=True)

    assert found == (LagStatus.STALL, LagStatus.OK)


async def test_a_handler_that_has_done_all_is_not_behind(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.append_batch(orders, [Placed(f"{n}") for n in range(30)])
    await harness.settle()
    await harness.advance(seconds=10)
    lag = await harness.subscription(note).lag()

    assert (lag.stream, lag.handler, lag.status) == (orders.name, "note", LagStatus.OK)
    assert (lag.events, lag.is_exact, lag.seconds, lag.event_seconds) == (0, True, 0.0, 0.0)
    assert (lag.in_per_second, lag.out_per_second, lag.drain_seconds) == (0.5, pytest.approx(0.5), 0.0)
    assert len(lag.lanes) == 16
    assert {lane.worker for lane in lag.lanes} != {""}


async def test_what_is_not_done_is_counted_and_timed(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        if event.data.amount:
            await asyncio.get_running_loop().create_future()

    await harness.append(orders, Placed("done"))
    await harness.settle()
    happened = datetime.fromtimestamp(harness.clock.now_ms() / 1000, UTC) - timedelta(hours=1)
    await harness.append(orders, Placed("hangs", 1), time=happened)
    await harness.advance(seconds=20)
    await harness.append(orders, Placed("waits", 2))
    await harness.advance(seconds=20)
    lag = await harness.subscription(note).lag()

    assert (lag.events, lag.seconds, lag.event_seconds) == (2, 40.0, 3_640.0)
    assert lag.status is LagStatus.STOP
    assert lag.drain_seconds is None
    assert sorted(lane.events for lane in lag.lanes)[-2:] in ([1, 1], [0, 2])


async def test_what_is_parked_does_not_count_as_lag(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    @orders.on(retry=Retry(attempts=1))
    async def note(event: Event[Placed]) -> None:
        raise ValueError("no")

    await harness.append_batch(orders, [Placed("a"), Placed("a"), Placed("b")])
    await harness.settle()
    await harness.advance(minutes=5)
    lag = await harness.subscription(note).lag()

    assert (lag.events, lag.seconds, lag.status) == (0, 0.0, LagStatus.OK)
    assert (lag.parked, lag.parked_seconds) == (3, 300.0)


async def test_the_rates_say_when_it_will_have_done_all(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    gates: dict[int, asyncio.Future[None]] = {}

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        gate = gates[event.data.amount] = asyncio.get_running_loop().create_future()
        await gate

    await harness.append_batch(orders, [Placed("k", n) for n in range(60)])
    await harness.advance(minutes=2)
    for n in range(30):
        await harness.until(lambda n=n: n in gates)
        gates[n].set_result(None)
        await harness.advance(seconds=2)
    lag = await harness.subscription(note).lag()

    assert (lag.events, lag.status, lag.in_per_second) == (30, LagStatus.OK, 0.0)
    assert lag.out_per_second == pytest.approx(0.5, rel=0.1)  # the last ten marks
    assert lag.drain_seconds == pytest.approx(60, rel=0.1)


async def test_one_that_hangs_while_others_of_its_lane_go_on_is_a_stall(harness: Harness, name: str) -> None:
    orders = Stream(name, Placed)

    @orders.on(order="none")
    async def note(event: Event[Placed]) -> None:
        if event.data.amount == 0:
            await asyncio.get_running_loop().create_future()

    await harness.open_once()
    await harness.append(orders, Placed("", 0))
    for n in range(1, 16 * 11):  # each sixteenth goes through its lane
        await harness.append(orders, Placed("", n))
        await harness.advance(seconds=0.2)
    lag = await harness.subscription(note).lag()

    assert lag.status is LagStatus.STALL
    assert [lane.events for lane in lag.lanes if lane.status is LagStatus.STALL] == [1]


async def test_one_that_was_sent_back_is_a_rewind_until_it_is_where_it_was(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    hangs = False

    @orders.on(order="stream")
    async def note(event: Event[Placed]) -> None:
        if hangs:
            await asyncio.get_running_loop().create_future()

    await harness.append_batch(orders, [Placed(f"{n}") for n in range(30)])
    await harness.settle()
    hangs = True
    await harness.advance(minutes=10)
    subscription = harness.subscription(note)
    await subscription.seek("earliest")
    await harness.settle()
    rewound = await subscription.lag()
    hangs = False
    await harness.crash()
    await harness.settle()
    await harness.advance(seconds=1)

    assert (rewound.status, rewound.events) == (LagStatus.REWIND, 30)
    assert (await subscription.lag()).status is LagStatus.OK


async def test_it_is_known_from_another_process_when_nobody_works(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    @orders.on()
    async def other(event: Event[Placed]) -> None: ...

    await harness.append(orders, Placed("a"))
    await harness.settle()
    await harness.stop()
    async with Client(harness.url) as client:
        await client.append(orders, Placed("a"))
        lags = {lag.handler: lag for lag in await client.lags() if lag.stream == orders.name}

    assert sorted(lags) == ["note", "other"]
    assert [(lag.events, {lane.worker for lane in lag.lanes}) for lag in lags.values()] == [(1, {""})] * 2
    assert note.name == "note"
    assert other.name == "other"


def lag_with(**fields: Any) -> Lag:
    base: dict[str, Any] = {
        "stream": "s", "handler": "h", "status": LagStatus.WARN, "events": 7, "is_exact": True,
        "seconds": 1.5, "event_seconds": 2.5, "in_per_second": 3.0, "out_per_second": 4.0,
        "drain_seconds": None, "parked": 5, "parked_seconds": 6.0, "problem": "",
        "lanes": (LaneLag(3, LagStatus.OK, 2, 0.5, "w", "p"),),
    }  # fmt: skip
    return Lag(**base | fields)


def test_gauges_are_named_and_labelled_for_an_exporter() -> None:
    found = gauges([lag_with()])
    of_it = {"stream": "s", "handler": "h"}

    assert Gauge("perdure_subscription_lag_events", of_it, 7.0) in found
    assert Gauge("perdure_subscription_lag_seconds", of_it, 1.5) in found
    assert Gauge("perdure_subscription_parked_events", of_it, 5.0) in found
    assert Gauge("perdure_subscription_drain_seconds", of_it, float("inf")) in found
    assert Gauge("perdure_lane_lag_events", {**of_it, "lane": "3"}, 2.0) in found
    assert [gauge.labels["status"] for gauge in found if gauge.name.endswith("_status") and gauge.value] == [
        "warn"
    ]


async def test_what_a_bridge_takes_in_has_no_lag(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.append(orders, Placed("1"))
    await harness.settle()
    harness.store.store.streams.subscribe("nats:SHOP", "perdure", lanes=1, from_start=True, is_intake=True)
    lags = await harness.lags()

    assert orders.name in {lag.stream for lag in lags}
    assert "nats:SHOP" not in {lag.stream for lag in lags}
    with pytest.raises(SubscriptionNotFound, match=f"Subscribed are: .*{orders.name}/note"):
        await harness.subscription("perdure", "nats:SHOP").seek("earliest")


async def test_a_handler_that_was_stopped_says_so_and_by_whose_word(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on()
    async def note(event: Event[Placed]) -> None: ...

    await harness.open_once()
    await harness.append(orders, Placed("a"))
    await harness.settle()
    subscription = harness.subscription(note)
    before = (await subscription.lag()).problem
    await subscription.stop(reason="maintenance")
    stopped = (await subscription.lag()).problem
    await subscription.resume()
    resumed = (await subscription.lag()).problem

    name = f"{orders.name}/note"
    assert stopped == f"{name} is stopped: maintenance. To have it go on: perdure dead resume {name}"
    assert (before, resumed) == ("", "")
