"""The stores that the conformance tests run on: another database is another parameter here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.stores.base import Lease, Store
from perdure.stores.sqlite import SqliteStore


@pytest.fixture(params=["sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the test's store once more, as another process would."""
    opened: list[Store] = []

    def open_again() -> Store:
        opened.append({"sqlite": SqliteStore}[request.param](tmp_path / "runs.db"))
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
