"""The registry of schemas in a store: put beside what was judged, and the versions that a stream keeps."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from perdure import StoreMoved
from perdure.core.events import Append, NewEvent, SchemaRow
from perdure.stores.base import Batch, MoveMark, Store
from tests.stores.events import forget_events, within


def row(version: int = 1, fingerprint: str = "f", stream: str = "orders") -> SchemaRow:
    return SchemaRow(stream, "placed", version, fingerprint, b"{}", 7)


def append(store: Store, version: int, stream: str = "orders") -> None:
    event = NewEvent(f"e{version}", "", "placed", version, "", 5, 6, "", b"{}", False)
    store.submit(Batch(appends=[Append(stream, [event])]))


def put(store: Store, new: SchemaRow) -> bool:
    return store.streams.put_schema(new, store.streams.schema_stand(new.stream))


def test_schemas_are_read_as_they_were_put_and_streams_do_not_see_each_other(
    store: Store, other: Store
) -> None:
    put(store, row(2))
    put(store, row(1))
    put(store, row(1, stream="others"))

    assert other.streams.schemas("orders") == [row(1), row(2)]
    assert other.streams.schemas() == [row(1), row(2), row(1, stream="others")]
    assert other.streams.has_schema("orders", "placed", 2, "f")
    assert not other.streams.has_schema("orders", "placed", 2, "another")


def test_a_schema_is_not_put_if_another_came_since_it_was_judged(store: Store, other: Store) -> None:
    stand = store.streams.schema_stand("orders")
    put(other, row(1))

    assert not store.streams.put_schema(row(2), stand)
    assert store.streams.schemas("orders") == [row(1)]


def test_a_schema_is_not_replaced_if_an_event_of_its_version_came_since(store: Store, other: Store) -> None:
    put(store, row(1))
    stand = store.streams.schema_stand("orders")
    append(other, 2)
    assert store.streams.put_schema(row(1, "g"), stand)
    stand = store.streams.schema_stand("orders")
    append(other, 1)

    assert not store.streams.put_schema(row(1, "h"), stand)
    assert store.streams.schemas("orders") == [row(1, "g")]


def test_a_version_is_kept_as_long_as_an_event_of_it_is(store: Store) -> None:
    append(store, 1)
    append(store, 1, stream="others")
    put(store, row(1))
    assert store.streams.keeps_version(row(1))

    forget_events(store)

    assert not store.streams.keeps_version(row(1))
    append(store, 1)
    (known,) = store.streams.schemas("orders")
    assert store.streams.keeps_version(known)


def test_a_stream_that_was_looked_through_is_not_looked_through_again(store: Store) -> None:
    append(store, 2)
    put(store, row(1))
    store.streams.keeps_version(row(1))

    (known,) = store.streams.schemas("orders")

    assert known.gone_to == store.streams.schema_stand("orders").last > 0


def test_a_schema_that_is_put_in_a_transaction_is_there_if_that_commits(store: Store, other: Store) -> None:
    seen: list[bool] = []

    def work(connection: Any) -> None:
        streams = store.streams
        for version in (1, 2):
            stand = streams.schema_stand("orders", connection=connection)
            assert streams.put_schema(row(version), stand, connection=connection)
        seen.append(streams.has_schema("orders", "placed", 2, "f", connection=connection))
        seen.append(streams.keeps_version(row(1), connection=connection))
        seen.append(other.streams.has_schema("orders", "placed", 2, "f"))
        raise Undone

    with suppress(Undone):
        within(store, work)

    assert seen == [True, False, False]
    assert store.streams.schemas() == []


def test_nothing_is_put_in_a_store_that_a_move_has_closed(store: Store) -> None:
    mark = MoveMark("moving", "m", 1, "sqlite:////else.db", 1)
    stand = store.streams.schema_stand("orders")
    store.mark_move(None, mark, now_ms=1)

    with pytest.raises(StoreMoved):
        store.streams.put_schema(row(1), stand)


class Undone(Exception):
    """Undoes the transaction that it is raised in."""
