"""What people do with a subscription, from code without asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from perdure import Event, NonRetryable, NotParked, Stream, StreamError, SubscriptionNotFound, sync
from perdure.blocks.handler import Handler
from perdure.blocks.serving import _defined
from perdure.streaming.subscription import Subscription
from tests.streams.events import Placed

Orders = Stream[Placed]


class Shop:
    """A handler that refuses what costs too much."""

    def __init__(self) -> None:
        self._seen: SimpleQueue[int] = SimpleQueue()
        self.orders: Orders = Stream("orders", Placed, key=lambda placed: placed.order)

        @self.orders.on(on_exhausted="park_key")
        def note(event: Event[Placed]) -> None:
            if event.data.amount > 10:
                raise NonRetryable("too much")
            self._seen.put(event.data.amount)

        self.handler: Handler[Placed] = note

    def handled(self, count: int) -> list[int]:
        """The next amounts that are handled, once they are."""
        return [self._seen.get(timeout=20) for _ in range(count)]


@pytest.fixture
def shop() -> Iterator[Shop]:
    yield Shop()
    _defined._handlers.clear()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def engine(shop: Shop, url: str) -> Iterator[sync.Engine]:
    with sync.Engine(url, handlers=[shop.handler]) as engine:
        yield engine


def until(is_so: Callable[[], bool]) -> None:
    """Look again and again; each look waits for the engine's loop."""
    for _ in range(10_000):
        if is_so():
            return
    raise AssertionError("it never came to be")


class Recorder:
    """Notes what is asked of it, as the awaiting subscription would get it."""

    stream, name = "orders", "note"
    asked: tuple[str, dict[str, object]]

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, None]]:
        async def note(*given: object, **named: object) -> None:
            bound = inspect.signature(getattr(Subscription, name)).bind(self, *given, **named)
            self.asked = name, {name: value for name, value in bound.arguments.items() if name != "self"}

        return note


def verbs_of(kind: type[object]) -> dict[str, list[tuple[str, object, object]]]:
    """The public methods, each with its parameters."""
    return {
        name: [(one.name, one.kind, one.default) for one in inspect.signature(member).parameters.values()]
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_a_blocking_subscription_can_do_all_that_an_awaiting_one_can() -> None:
    assert verbs_of(sync.Subscription) == verbs_of(Subscription)


@pytest.mark.parametrize("verb", verbs_of(sync.Subscription))
def test_every_argument_is_handed_on(verb: str) -> None:
    recorder: Any = Recorder()
    subscription = sync.Subscription(lambda what, make, timeout=None: asyncio.run(make(recorder)), recorder)
    arguments = {name: object() for name, _, _ in verbs_of(sync.Subscription)[verb][1:]}

    getattr(subscription, verb)(**arguments)

    assert recorder.asked == (verb, arguments)


def test_what_is_parked_is_looked_at_edited_redriven_and_discarded(engine: sync.Engine, shop: Shop) -> None:
    subscription = engine.subscription(shop.handler)
    first, second, third, fourth = (
        appended.position
        for appended in engine.append_batch(
            shop.orders, [Placed("a", 11), Placed("a", 2), Placed("b", 12), Placed("c", 13)]
        )
    )
    until(lambda: len(subscription.parked()) == 4)

    subscription.edit(first, {"order": "a", "amount": 1}, reason="a slip", by="ann")
    plan = subscription.redrive(first, dry_run=True)
    done = subscription.redrive(key="a", reason="mended", by="ann")
    mended = shop.handled(2)
    gone = subscription.discard([third], reason="a test", by="ben")
    status = subscription.status()

    assert (plan.events, plan.is_dry_run) == ([first, second], True)
    assert (done.events, mended) == ([first, second], [1, 2])
    assert gone == [third]
    assert (status.status, status.parked) == ("active", {"failed": 1})
    assert [one.position for one in subscription.parked(key="c", reason="failed", limit=1)] == [fourth]
    assert subscription.parked(after=fourth) == []
    assert subscription.show(fourth).parked.error == "NonRetryable: too much"
    with pytest.raises(NotParked):
        subscription.show(third)


def test_a_handler_is_stopped_resumed_measured_and_sent_elsewhere(engine: sync.Engine, shop: Shop) -> None:
    (subscription,) = engine.subscriptions()
    first = engine.append(shop.orders, Placed("a", 1)).position
    before = shop.handled(1)

    stopped = subscription.stop(reason="maintenance")
    engine.append(shop.orders, Placed("a", 2))
    status = subscription.status().status
    until(lambda: subscription.lag().events == 1)
    (lag,) = engine.lags()
    plan = subscription.seek("earliest", dry_run=True)
    resumed = subscription.resume(reason="done")
    after = shop.handled(1)
    until(lambda: subscription.lag().events == 0)
    subscription.seek(first, reason="again", by="ann")
    again = shop.handled(2)

    assert repr(subscription) == "<subscription orders/note>"
    assert (stopped, status, resumed) == (True, "stopped", True)
    assert (before, after, again) == ([1], [2], [1, 2])
    assert (lag.handler, lag.events) == ("note", 1)
    assert (plan.again, plan.is_done) == (1, False)
    assert [(one.position, one.by, one.reason) for one in subscription.seeks()] == [(first, "ann", "again")]
    with pytest.raises(StreamError, match="serves orders/note"):
        subscription.remove()


def test_a_handler_that_is_gone_for_good_is_forgotten(shop: Shop, url: str) -> None:
    with sync.Engine(url, handlers=[shop.handler]):
        pass

    with sync.Client(url) as client:
        subscription = client.subscription("note", "orders")
        before = client.subscriptions()
        subscription.remove()

        assert len(before) == 1
        assert client.subscriptions() == []
        with pytest.raises(SubscriptionNotFound):
            subscription.lag()


def test_how_far_event_time_is_can_be_asked(url: str, shop: Shop) -> None:
    @shop.orders.window(Placed, tumbling=timedelta(hours=1), initial=0)
    def hourly(total: int, event: Event[Placed]) -> int:
        return total + event.data.amount

    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    with sync.Engine(url, handlers=[hourly]) as engine:
        engine.append(shop.orders, Placed("a", 1), time=noon)
        until(lambda: engine.subscription(hourly).event_time().open_windows == 1)

        assert engine.subscription(hourly).event_time().latest == noon


def test_a_handler_is_forked_and_compared(shop: Shop, url: str) -> None:
    with sync.Engine(url, handlers=[shop.handler]) as engine:
        engine.append(shop.orders, Placed("a", 1))
        shop.handled(1)
        shadow = engine.subscription(shop.handler).fork("new")
        holdup = engine.holdup()
    with sync.Engine(url, handlers=[shadow]) as engine:
        subscription = engine.subscription(shadow)
        until(lambda: {lag.handler: lag.events for lag in engine.lags()} == {"note": 0, "note~new": 0})
        handled = subscription.compare().handled

    assert shop.handled(1) == [1]
    assert handled == 1
    assert holdup is None
