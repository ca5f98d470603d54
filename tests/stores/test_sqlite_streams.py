"""Event streams in a file: what its disk has changed."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from perdure import StoreCorrupt
from perdure.stores.sqlite import SqliteStore
from tests.stores.test_stream import append, make


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
