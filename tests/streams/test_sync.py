"""Event streams without asyncio."""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
import pytest

from perdure import CloudEvent, DuplicateConflict, Event, PerdureError, Retry, Stream, sync
from tests.streams.events import Paid, Placed


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


def test_what_is_appended_is_handled_and_what_is_parked_is_read(
    url: str, orders: Stream[Placed | Paid]
) -> None:
    came, seen = threading.Event(), list[str]()

    @orders.on(Placed, retry=Retry(attempts=1))
    def note(event: Event[Placed]) -> None:
        if event.key == "bad":
            raise ValueError("no")
        seen.append(event.id)
        if event.key == "last":
            came.set()

    with sync.Engine(url, workflows=[], handlers=[note]) as engine:
        first = engine.append(orders, Placed("a"), id="1")
        again = engine.append(orders, Placed("a"), id="1")
        with pytest.raises(DuplicateConflict):
            engine.append(orders, Placed("b"), id="1")
        engine.append(orders, Placed("bad"))
        cloud = CloudEvent(id="2", source="s", type="order.placed", payload=b'{"order":"b"}')
        engine.append_cloudevent(orders, cloud)
        batch = engine.append_batch(orders, [Paid("c"), Placed("last")])
        assert came.wait(20)
        subscription: sync.Subscription = engine.subscription(note)
        while not subscription.parked():
            pass
        (parked,) = engine.subscription("note", orders.name).parked()

    assert again.is_duplicate
    assert again.position == first.position < batch[0].position < batch[1].position
    assert seen[:2] == ["1", "2"]
    assert (parked.key, parked.error, repr(subscription)) == (
        "bad", "ValueError: no", f"<subscription {orders.name}/note>",
    )  # fmt: skip


def test_an_event_is_appended_in_the_callers_transaction(url: str, orders: Stream[Placed | Paid]) -> None:
    with sync.Client(url) as client:
        connection = apsw.Connection(url.removeprefix("sqlite:///"))
        connection.execute("CREATE TABLE note (text TEXT)")
        connection.execute("BEGIN IMMEDIATE")
        lost = client.append(orders, Placed("a"), connection=connection)
        connection.execute("ROLLBACK")
        with connection:
            kept = client.append_batch(orders, [Placed("a"), Placed("b")], connection=connection)
        connection.close()
        after = client.append(orders, Placed("c"))

    assert [one.position[-1] for one in (lost, *kept, after)] == ["1", "1", "2", "3"]


def test_a_client_that_is_not_open_says_so(url: str, orders: Stream[Placed | Paid]) -> None:
    with pytest.raises(PerdureError, match=r"append\(\).*not open"):
        sync.Client(url).append(orders, Placed("a"))
