"""A store behind PgBouncer in transaction mode: nothing may be left at the server between transactions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from perdure.errors import CommitsLost, LeaseLost
from perdure.stores.base import Batch
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from tests.postgres import with_schema
from tests.stores.build import end, new_run, record, signal, start
from tests.stores.servers import running_server, wait_until_has

BOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

CONFIGURATION = """
[databases]
{dbname} = host={host} port={port} user={user} pool_size=3
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = transaction
pidfile = {folder}/pid
logfile = {folder}/log
"""

pytestmark = pytest.mark.skipif(BOUNCER is None, reason="pgbouncer is not installed")


@contextmanager
def bouncing(server: str, *, socket: Path | None = None) -> Iterator[str]:
    """The URL of the database behind a pooler, without a schema; or of what answers at `socket`."""
    assert BOUNCER is not None
    known = {"host": "127.0.0.1", "port": 5432, "user": "postgres", **conninfo_to_dict(server)}
    folder = Path(mkdtemp(prefix="perdure-bouncer-"))
    folder.chmod(0o777)
    # It refuses to be root, and only the server's own user may look into the folder of the server's socket.
    owner = Path(str(known["host"])).stat().st_uid if str(known["host"]).startswith("/") else 65_534
    as_user = {"user": owner, "extra_groups": []} if os.geteuid() == 0 else {}
    known |= {"folder": folder, "host": socket or known["host"]}
    (folder / "ini").write_text(CONFIGURATION.format(**known))
    with subprocess.Popen([BOUNCER, "-q", str(folder / "ini")], **as_user) as process:  # type: ignore[call-overload]
        while not (folder / ".s.PGSQL.6432").exists() and process.poll() is None:
            pass
        try:
            yield f"postgresql:///{known['dbname']}?host={folder}&port=6432&user={known['user']}"
        finally:
            process.kill()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pooler(postgres_server: str) -> Iterator[str]:
    with bouncing(postgres_server) as url:
        yield url


@pytest.fixture
def stores(pooler: str, postgres_url: str) -> Iterator[list[PostgresStore]]:
    """The store as six processes have it, behind a pooler that has three connections."""
    url = with_schema(pooler, postgres_url.rpartition("=")[2])
    opened = [PostgresStore(url) for _ in range(6)]
    yield opened
    for store in opened:
        store.close()


def test_workers_behind_a_pooler_write_claim_and_read(stores: list[PostgresStore]) -> None:
    leases = [store.acquire(f"w{number}", now_ms=0, ttl_ms=60_000) for number, store in enumerate(stores)]

    for turn in range(12):  # often enough for statements that would have been prepared
        for number, (store, lease) in enumerate(zip(stores, leases, strict=True)):
            run = start(store, lease, f"{turn}/{number}")
            store.commit(lease, Batch(records=[record(run, 0)], messages=[signal(run, request="q")]))
            (message,) = store.messages_for(run)
            store.commit(lease, Batch(taken=[message.pos], ends=[end(run)]))
            assert len(store.load([run])[0].records) == 1
    stores[0].submit(Batch(starts=[new_run("free")]))
    taken = [
        store.claim(lease, workflows=["checkout"], now_ms=1, limit=9)
        for store, lease in zip(stores, leases, strict=True)
    ]

    assert sum(map(len, taken)) == 1
    assert stores[0].counts() == {1: 1, 3: 72}
    assert stores[0].versions()["connection"] == "through a pooler"
    assert list(stores[0].check()) == []


def test_behind_a_pooler_nobody_listens_and_nobody_is_taken_for_dead(stores: list[PostgresStore]) -> None:
    first, second, *_ = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=60_000)
    heir = second.acquire("heir", now_ms=0, ttl_ms=60_000)
    start(first, lease)

    listens = first.listen(lambda: None)
    first.close()

    assert listens is False
    assert second.claim(heir, workflows=["checkout"], now_ms=10**13, limit=9) == []
    assert [row.worker for row in second.workers(now_ms=0)] == ["first", "heir"]


def test_the_fence_holds_behind_a_pooler(stores: list[PostgresStore]) -> None:
    first, second, *_ = stores
    lease = first.acquire("first", now_ms=0, ttl_ms=0)
    heir = second.acquire("heir", now_ms=0, ttl_ms=60_000)
    run = start(first, lease)

    taken = second.claim(heir, workflows=["checkout"], now_ms=10**13, limit=9)

    assert taken == [run]
    with pytest.raises(LeaseLost):
        first.commit(lease, Batch(records=[record(run, 0)]))


def test_a_commit_is_safe_although_the_server_would_not_wait_for_its_disk(
    stores: list[PostgresStore], postgres_url: str
) -> None:
    direct = PostgresStore(f"{postgres_url}&options=-c%20synchronous_commit%3Doff")

    settings = [
        direct._database.rows("setting", "synchronous_commit"),
        [stores[0]._database.write(synchronous)],
    ]

    assert settings == [[("on",)], ["on"]]
    direct.close()


def synchronous(link: Link) -> object:
    link.query("SET synchronous_commit = off")
    with link.transaction():
        found = link.run("setting", "synchronous_commit")
    link.query("SET synchronous_commit = on")
    return found.fetchall()[0][0]


def test_a_connection_of_the_pooler_that_is_cut_is_taken_again(
    stores: list[PostgresStore], postgres_server: str
) -> None:
    store = stores[0]
    lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
    run = start(store, lease)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    store.commit(lease, Batch(records=[record(run, 0)]))

    assert len(store.records(run)) == 1


@pytest.mark.slow
def test_lost_commits_are_noticed_though_the_pooler_keeps_the_connection() -> None:
    with running_server() as server:
        PostgresStore(server.url).close()
        standby = server.make_standby()
        leads_to = server.folder / "now"
        leads_to.symlink_to(conninfo_to_dict(server.url)["host"])
        with bouncing(server.url, socket=leads_to) as url:
            store = PostgresStore(url)
            lease = store.acquire("w", now_ms=0, ttl_ms=60_000)
            run = start(store, lease)
            store.commit(lease, Batch(records=[record(run, 0)]))
            wait_until_has(standby, run)
            server.stop_standby()
            store.commit(lease, Batch(records=[record(run, 1)]))
            server.stop_primary()
            server.start_standby()
            server.promote()
            leads_to.unlink()
            leads_to.symlink_to(conninfo_to_dict(standby)["host"])
            store.run_by_number(run)  # and the pooler has noticed

            with pytest.raises(CommitsLost, match="has lost commits"):
                store.commit(lease, Batch(records=[record(run, 2)]))

            store.close()
        after = PostgresStore(standby)
        assert len(after.records(run)) == 1
        after.close()
