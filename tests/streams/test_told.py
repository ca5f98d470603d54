"""What the log says of an event that fails: where to find it, and where in the user's code it failed."""

from __future__ import annotations

import pytest

from perdure import Event, NonRetryable, Retry, Stream
from perdure.testing import Harness
from tests.streams.events import Paid, Placed


@pytest.mark.parametrize("error", [ValueError("unlucky"), NonRetryable("never")])
async def test_the_log_says_how_a_parked_event_is_looked_at(
    harness: Harness, orders: Stream[Placed | Paid], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    @orders.on(retry=Retry(attempts=1))
    async def ship(event: Event[Placed]) -> None:
        raise error

    await harness.open_once()
    position = (await harness.append(orders, Placed("one"))).position
    await harness.settle()

    assert f"at {position}" in caplog.text
    assert f"perdure dead show {orders.name}/{ship.name} {position}" in caplog.text


async def test_the_log_says_how_an_event_that_is_in_no_window_is_looked_at(
    harness: Harness, orders: Stream[Placed | Paid], caplog: pytest.LogCaptureFixture
) -> None:
    @orders.window(initial=0, tumbling=60)
    def count(state: int, event: Event[Placed]) -> int:
        raise ValueError("unlucky")

    await harness.open_once()
    position = (await harness.append(orders, Placed("one"))).position
    await harness.settle()

    assert f"perdure dead show {orders.name}/{count.name} {position}" in caplog.text


async def test_a_handler_that_stops_says_at_which_event(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @orders.on(retry=Retry(attempts=1), on_exhausted="stop")
    async def ship(event: Event[Placed]) -> None:
        raise ValueError("unlucky")

    await harness.open_once()
    position = (await harness.append(orders, Placed("one"))).position
    await harness.settle()

    status = await harness.engine.subscription(ship).status()
    assert position in status.reason


async def test_the_traceback_begins_in_the_users_code(
    harness: Harness, orders: Stream[Placed | Paid], caplog: pytest.LogCaptureFixture
) -> None:
    @orders.on(retry=Retry(attempts=1))
    async def ship(event: Event[Placed]) -> None:
        raise ValueError("unlucky")

    await harness.open_once()
    position = (await harness.append(orders, Placed("one"))).position
    await harness.settle()

    details = await harness.engine.subscription(ship).show(position)
    kept = "\n".join(details.traceback)
    for told in (kept, caplog.text[caplog.text.index("Traceback") :]):
        assert "in ship" in told
        assert "subscriber.py" not in told
        assert "calling.py" not in told


async def test_a_traceback_without_the_users_code_is_whole(
    harness: Harness, orders: Stream[Placed | Paid], caplog: pytest.LogCaptureFixture
) -> None:
    ship = orders.on(name="ship", retry=Retry(attempts=1))(int)

    await harness.open_once()
    await harness.append(orders, Placed("one"))
    await harness.until(lambda: "calling.py" in caplog.text)  # `int` is called on a thread

    assert ship.name == "ship"
