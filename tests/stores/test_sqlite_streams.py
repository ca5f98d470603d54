"""Event streams in a file: what its disk has changed."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from perdure import StoreCorrupt
from perdure.stores.sqlite import SqliteStore
from tests.stores.test_stream import append, make
from tests.stores.test_windows import ROW, change


def test_a_damaged_event_is_named_and_does_not_hide_the_others(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    append(store, make("a"), make("b"), make("c"))
    apsw.Connection(str(tmp_path / "runs.db")).execute("UPDATE event SET payload = x'32' WHERE id = 'b'")

    events = store.streams.events("orders", after=0, limit=9).events
    assert [(event.position, event.id, "event 2 of stream number 1" in event.damage) for event in events] == [
        (1, "a", False), (2, "", True), (3, "c", False),
    ]  # fmt: skip
    with pytest.raises(StoreCorrupt, match="event 2 of stream number 1"):
        append(store, make("b"))
    assert len([sentence for sentence in store.check() if "event 2" in sentence]) == 1


@pytest.mark.parametrize(
    "sql", ["UPDATE event_window SET events = 9", "UPDATE lane_time SET watermark_ms = 9"]
)
def test_windows_that_the_disk_has_changed_are_refused_and_named(tmp_path: Path, sql: str) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    lease = store.acquire("first", now_ms=0, ttl_ms=10_000)
    number = store.streams.subscribe("orders", "sums", lanes=2, from_start=True).number
    store.streams.claim_lanes(lease, [number], now_ms=1)
    store.commit(lease, change(number, ROW))

    apsw.Connection(str(tmp_path / "runs.db")).execute(sql)

    with pytest.raises(StoreCorrupt, match=f"subscription number {number} is damaged"):
        store.streams.windows(number)
    assert len([sentence for sentence in store.check() if "is damaged" in sentence]) == 1
