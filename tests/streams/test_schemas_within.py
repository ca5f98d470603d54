"""Events that are appended in the user's own transaction have their schemas in the registry, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import msgspec
import psycopg
import pytest

from perdure import SchemaError, Stream, event
from perdure.sync import Client
from perdure.testing import Harness
from tests.streams.events import Paid, Placed
from tests.streams.notes import Notes


def make(version: int, *fields: tuple[str, type]) -> Any:
    kind = msgspec.defstruct("Thing", fields, kw_only=True, frozen=True)
    return event("thing.within", version=version)(kind)


def registered(harness: Harness, stream: str) -> list[tuple[str, int]]:
    return [(row.type, row.version) for row in harness.store.store.streams.schemas(stream)]


async def test_what_they_look_like_is_registered_with_the_first_of_each_type(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    notes = Notes(harness)
    with notes.connect() as connection:
        notes.write(connection, "a")
        await harness.append(orders, Placed("a"), connection=connection)
        await harness.append_batch(orders, [Placed("b"), Paid("b")], connection=connection)

    assert registered(harness, orders.name) == [("order.paid", 2), ("order.placed", 1)]


async def test_what_was_undone_with_the_transaction_is_registered_with_the_next(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    notes = Notes(harness)
    connection = notes.connect()
    notes.begin(connection)
    await harness.append(orders, Placed("a"), connection=connection)
    connection.execute("ROLLBACK")
    connection.close()

    with notes.connect() as connection:
        notes.write(connection, "a")
        await harness.append(orders, Placed("a"), connection=connection)

    assert registered(harness, orders.name) == [("order.placed", 1)]


async def test_one_that_does_not_go_with_what_is_kept_is_refused_and_the_transaction_goes_on(
    harness: Harness, name: str
) -> None:
    old, new = make(1, ("a", int)), make(1, ("a", str))
    await harness.append(Stream(name, old), old(a=1))
    notes = Notes(harness)

    with notes.connect() as connection:
        notes.write(connection, "kept")
        with pytest.raises(SchemaError, match="is not what that version was"):
            await harness.append(Stream(name, new), new(a="x"), connection=connection)

    assert notes.read() == ["kept"]
    assert len(harness.store.store.streams.events(name, after=0, limit=9).events) == 1


@pytest.mark.parametrize("harness", ["postgres"], indirect=True)
async def test_a_connection_that_is_awaited_registers_too(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    database = harness.url[: harness.url.index("schema=") - 1]
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await harness.append(orders, Placed("a"), connection=connection)

    assert registered(harness, orders.name) == [("order.placed", 1)]


def test_a_client_that_blocks_registers_too(tmp_path: Path, orders: Stream[Placed | Paid]) -> None:
    path = str(tmp_path / "runs.db")
    with Client(f"sqlite:///{path}", create=True) as client:
        with apsw.Connection(path) as connection:
            client.append(orders, Placed("a"), connection=connection)
        kept = client._ask("schemas", lambda asked: asked.door.read(lambda store: store.streams.schemas()))

    assert [(row.type, row.version) for row in kept] == [("order.placed", 1)]
