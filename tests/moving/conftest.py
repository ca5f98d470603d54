"""Two places for stores, and stores that are filled, broken off or looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from perdure.errors import StoreMoved
from perdure.moving import Progress, move
from perdure.stores.base import Batch, RunQuery
from perdure.stores.opening import open_store
from tests.stores.build import new_run, record

RUNS = 1_100
"""More than two pages."""


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite", "sqlite to sqlite"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Of two stores that are not there yet."""
    from_kind, to_kind = request.param.split(" to ")
    return _url(from_kind, "from", tmp_path, request), _url(to_kind, "to", tmp_path, request)


def _url(kind: str, name: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/{name}.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def more_urls(postgres_url: str, postgres_server: str) -> Iterator[Callable[[], str]]:
    """Gives URLs of further stores in PostgreSQL."""
    given: list[str] = []

    def give() -> str:
        given.append(f"{postgres_url}_{len(given)}")
        return given[-1]

    yield give
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for url in given:
            connection.execute(f"DROP SCHEMA IF EXISTS {url.rpartition('=')[2]} CASCADE".encode())


def fill(url: str, runs: int = RUNS) -> None:
    """Runs that wait, each with a record."""
    store = open_store(url)
    lease = store.acquire("w", now_ms=0, ttl_ms=1 << 50)
    starts = store.commit(lease, Batch(starts=[new_run(f"run-{n}") for n in range(runs)])).starts
    store.commit(lease, Batch(records=[record(start.run.number, 0) for start in starts]))
    store.release(lease)
    store.close()


def break_off(urls: tuple[str, str], at: str = "copy") -> None:
    """Leave a move half done."""

    class BrokenOff(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == at:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        move(*urls, progress=stop)


def ids_in(url: str) -> list[str] | None:
    """The ids of all runs of a store that can be written to; None if it cannot."""
    try:
        store = open_store(url)
    except StoreMoved:
        return None
    try:
        lease = store.acquire("looks", now_ms=0, ttl_ms=1 << 50)
        store.release(lease)
        assert list(store.check()) == []
        return sorted(row.id for row in store.list_runs(RunQuery(all_generations=True, limit=1 << 30)))
    finally:
        store.close()


def homes(*urls: str) -> list[str]:
    """Which of these stores have runs, and can be written to."""
    return [url for url in urls if ids_in(url)]
