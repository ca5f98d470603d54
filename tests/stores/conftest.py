"""The stores that the conformance tests run on: another database is another parameter here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from perdure.stores.base import Lease, Store
from perdure.stores.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the test's store once more, as another process would."""
    opened: list[Store] = []
    if request.param == "postgres":
        from perdure.stores.postgres import PostgresStore

        # The tests say what time it is, and this store would ask the server.
        open_one = partial(PostgresStore, request.getfixturevalue("postgres_url"), believes_caller=True)
    else:
        open_one = partial(SqliteStore, tmp_path / "runs.db")

    def open_again() -> Store:
        opened.append(open_one())
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    """A new store."""
    return open_store()


@pytest.fixture
def lease(store: Store) -> Lease:
    """The lease on `store`, until 10 s past the epoch."""
    return store.acquire("first", now_ms=0, ttl_ms=10_000)


@pytest.fixture
def other(open_store: Callable[[], Store]) -> Store:
    """The store once more, as another worker has it."""
    return open_store()


@pytest.fixture
def second(other: Store) -> Lease:
    """The lease on `other`, for long."""
    return other.acquire("second", now_ms=0, ttl_ms=1_000_000)
