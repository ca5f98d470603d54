"""Servers that go away, ways that are cut, full disks: all for real. What is written is written once."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

import psycopg
import pytest
from msgspec.structs import replace

from perdure.core.events import Append
from perdure.core.records import Message, MessageKind
from perdure.core.standing import KeepRule
from perdure.errors import LeaseLost, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from perdure.stores.base import AttemptRow, Batch, Lease
from perdure.stores.opening import open_store
from perdure.stores.postgres import PostgresStore, faults
from perdure.stores.postgres.appending import stream_number
from perdure.stores.postgres.connection import Database
from perdure.stores.postgres.link import Link
from tests.stores.build import end, new_run, record, signal, start
from tests.stores.cutting import Way, Where, way_to
from tests.stores.test_stream import append_all, make, names


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def lease(store: PostgresStore) -> Lease:
    return store.acquire("w", now_ms=0, ttl_ms=60_000)


@pytest.fixture
def way(postgres_server: str) -> Iterator[Way]:
    with way_to(postgres_server) as way:
        yield way


@pytest.fixture
def far(way: Way, store: PostgresStore) -> Iterator[PostgresStore]:
    """The same store, at the end of a way that can be cut."""
    opened = PostgresStore(way.url(store._database.place.schema))
    yield opened
    opened.close()


def attempt(run: int) -> AttemptRow:
    """An attempt, which may be written twice and is there once."""
    return AttemptRow(run, "0/0/charge", 1, None, None, 1)


def batch_with_all(run: int) -> Batch:
    """A batch that would leave more than one trace if it were written twice."""
    return Batch(
        starts=[new_run("new", seed=b"n" * 16, messages=(signal(0),))],
        records=[record(run, 0)],
        messages=[signal(run), signal(run, request="q")],
    )


BATCHES = {
    "all": batch_with_all,
    "starts": lambda run: Batch(starts=[new_run("new", seed=b"n" * 16)]),
    "messages": lambda run: Batch(messages=[signal(run), signal(run, request="q")]),
    "unnamed messages": lambda run: Batch(messages=[signal(run)]),
    "ends": lambda run: Batch(ends=[end(run)]),
    "records": lambda run: Batch(records=[record(run, 0)], attempts=[attempt(run)]),
}


@pytest.mark.parametrize("where", ["before", "after", "silently"])
@pytest.mark.parametrize("kind", BATCHES)
def test_a_commit_whose_answer_does_not_come_is_written_once(
    store: PostgresStore, far: PostgresStore, way: Way, kind: str, where: Where
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    batch = BATCHES[kind](run)

    way.cut_at_commit(where)
    committed = far.commit(lease, batch)

    assert way.cuts == 1
    assert [outcome.verdict for outcome in committed.starts] == ["started"] * len(batch.starts)
    assert [m.pos for m in store.messages_for(run)] == list(committed.messages)
    assert len(store.records(run)) == len(batch.records)
    new = store.run_by_id("new")
    assert [new] == [outcome.run for outcome in committed.starts] or new is None
    assert list(store.check()) == []


@pytest.mark.parametrize("kind", ["ends", "messages", "unnamed messages", "starts"])
def test_a_transaction_whose_number_the_server_has_given_to_another_is_written_again(
    store: PostgresStore, far: PostgresStore, way: Way, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    ask_after = Database._ask_after
    ((another, _),) = store._database.rows("transaction")

    def ask_after_crash(database: Database, broken: Link) -> bool:
        """As after a crash in which the transaction was lost, with its number."""
        broken.transaction_number = another
        return ask_after(database, broken)

    monkeypatch.setattr(Database, "_ask_after", ask_after_crash)
    way.cut_at_commit("before")
    far.commit(lease, BATCHES[kind](run))

    row = store.run_by_number(run)
    assert row is not None
    assert row.status == (3 if kind == "ends" else 1)
    assert len(store.messages_for(run)) == {"messages": 2, "unnamed messages": 1}.get(kind, 0)
    assert (store.run_by_id("new") is not None) == (kind == "starts")
    assert way.cuts == 1


def test_an_append_of_which_a_crash_gave_the_number_away_is_not_believed(store: PostgresStore) -> None:
    (placed,) = append_all(store, make("a"))
    link = store._database.connect()
    link.transaction_number = placed.position >> 20
    seen: list[bool] = []

    for id in ("a", "b"):
        link.witness = "witness_event", stream_number("orders"), placed.position, id
        seen.append(store._database._ask_after(link))
    link.close()

    assert seen == [True, False]


def test_an_event_that_was_let_go_since_it_was_appended_was_not_lost(
    store: PostgresStore, lease: Lease, far: PostgresStore
) -> None:
    store.commit(lease, Batch(appends=[Append("orders", [make("a")])]))
    assert far.streams.let_go(KeepRule("orders", 0, None, waits=False), now_ms=1 << 60, limit=9) == 1
    writer = store._database._writer
    assert writer is not None
    writer.close()

    store.commit(lease, Batch(appends=[Append("orders", [make("b")])]))

    assert names(store, after=store.streams.span("orders", since_ms=0).gone) == ["b"]


def test_what_a_process_has_said_is_forgotten_thirty_days_after_its_last(store: PostgresStore) -> None:
    old, new = "VALUES (1, 1, now() - interval '31 days')", "VALUES (2, 1, now() - interval '29 days')"
    with psycopg.connect(**store._database.place.parameters) as other:  # type: ignore[arg-type]
        for row in (old, new):
            other.execute(f"INSERT INTO {store._database.place.schema}.said {row}".encode())

    store.acquire("w", now_ms=0, ttl_ms=60_000)

    assert [store._database.rows("witness_said", process, 1) for process in (1, 2)] == [[], [(1,)]]


def test_a_record_that_another_worker_has_written_since_does_not_show_that_a_commit_was_written(
    store: PostgresStore, far: PostgresStore, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    batch = Batch(records=[record(run, 0)], starts=[new_run("child", seed=b"c" * 16)])
    ask_after = Database._ask_after

    def ask_after_takeover(database: Database, broken: Link) -> bool:
        """As after a crash: the number is another's, and so is the run, which has got on as far."""
        store._database.rows("end_lease", lease.number)
        heir = store.acquire("heir", now_ms=0, ttl_ms=60_000)
        store.claim(heir, workflows=["checkout"], now_ms=10**13, limit=9)
        store.commit(heir, Batch(records=[record(run, 0)]))
        ((broken.transaction_number, _),) = store._database.rows("transaction")
        return ask_after(database, broken)

    monkeypatch.setattr(Database, "_ask_after", ask_after_takeover)
    way.cut_at_commit("before")

    with pytest.raises(LeaseLost, match="may have been written or not"):
        far.commit(lease, batch)

    assert store.run_by_id("child") is None


def test_a_submission_whose_answer_does_not_come_is_written_once(
    store: PostgresStore, far: PostgresStore, way: Way
) -> None:
    way.cut_at_commit("after")
    committed = far.submit(Batch(starts=[new_run("new")]))

    assert [outcome.verdict for outcome in committed.starts] == ["started"]
    assert store.run_by_id("new") == committed.starts[0].run
    assert way.cuts == 1


@pytest.mark.parametrize("where", ["before", "after", "silently"])
def test_a_way_that_is_cut_in_the_midst_of_a_commit_is_taken_again_at_once(
    store: PostgresStore, far: PostgresStore, way: Way, where: Where
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    begun_s = time.monotonic()

    way.cut_at(b"cut here", where=where)
    far.commit(lease, Batch(wakes=[(1, 0, run)], attempts=[AttemptRow(run, "cut here", 1, None, None, 1)]))

    assert way.cuts == 1
    assert [attempt.key for attempt in store.attempts(run)] == ["cut here"]
    assert time.monotonic() - begun_s < 4  # the server would break off what hangs after five seconds


def test_a_number_of_a_transaction_that_a_crash_gave_away_is_not_believed(
    store: PostgresStore, lease: Lease
) -> None:
    run = start(store, lease)
    others = store._database.connect()
    seen: list[bool] = []

    # Another transaction got the number of this one, and was committed.
    others.transaction_number = store.submit(Batch(messages=[signal(run)])).messages[0] >> 20
    for witness in (
        ("witness_said", 1, 1),
        ("witness_record", run, 0),
        ("witness_run", run, b"other"),
        ("witness_request", run, "q"),
    ):
        others.witness = witness
        seen.append(store._database._ask_after(others))
    others.close()

    assert seen == [False] * 4


def test_a_message_whose_position_a_crash_has_given_a_second_time_is_found(
    store: PostgresStore, lease: Lease
) -> None:
    run = start(store, lease)
    before = store.messages(lease, after=0, limit=10).messages
    for link in store._database._readers:  # which a crash ends
        link.connection.close()
    message = f"INSERT INTO {store._database.place.schema}.message VALUES (1, {run}, 1, 'go', NULL, '', 1)"
    with psycopg.connect(**store._database.place.parameters) as other:  # type: ignore[arg-type]
        other.execute(message.encode())

    found = store.messages(lease, after=0, limit=10).messages

    assert before == []
    assert [one.pos for one in found] == [1]


def test_reads_and_commits_go_on_after_all_connections_were_cut(store: PostgresStore, lease: Lease) -> None:
    run = start(store, lease)
    for seq in range(3):
        cut_all(store)
        assert len(store.records(run)) == seq
        cut_all(store)
        store.commit(lease, Batch(records=[record(run, seq)]))

    assert len(store.records(run)) == 3


def cut_all(store: PostgresStore) -> None:
    with psycopg.connect(**store._database.place.parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'perdure' AND pid <> pg_backend_pid()"
        )


def test_a_commit_waits_for_a_server_that_restarts(
    store: PostgresStore, far: PostgresStore, way: Way
) -> None:
    lease = far.acquire("far", now_ms=0, ttl_ms=60_000)
    run = start(far, lease)
    way.is_blocked = True
    way.cut_at(b"first", where="before")
    committed = threading.Event()

    thread = threading.Thread(
        target=lambda: (far.commit(lease, Batch(records=[record(run, 0, b"first")])), committed.set())
    )
    thread.start()
    early = committed.wait(0.3)
    way.is_blocked = False
    thread.join()

    assert (early, committed.is_set()) == (False, True)
    assert len(store.records(run)) == 1


def test_what_deadlocks_is_done_again(store: PostgresStore) -> None:
    tries: list[int] = []

    def deadlock_once(link: Link) -> int:
        tries.append(1)
        with link.transaction():
            pass
        if len(tries) == 1:
            link.query("DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$")
        return len(tries)

    done = store._database.write(deadlock_once)

    assert done == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"user": "nobody_here"}, "nobody_here"),
        ({"dbname": "no_such_database"}, "no_such_database"),
    ],
)
def test_a_server_that_refuses_is_quoted_and_the_password_is_not(
    postgres_server: str, changes: dict[str, str], says: str
) -> None:
    known = {"password": "s3cret:/?@", "host": "", **_known(postgres_server), **changes}
    query = "&".join(f"{name}={quote(value)}" for name, value in known.items() if value)

    with pytest.raises(StoreUnavailable, match=says) as caught:
        open_store(f"postgresql://?{query}")

    shown = f"{caught.value} {caught.value.__cause__!r}"
    assert "s3cret" not in shown
    assert "Check user" in shown


def _known(url: str) -> dict[str, str]:
    return {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(url).items()}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:p@ss@host:port/db",
        "postgresql://ann:p/ass@host/db",
        "postgresql://ann:p?ass@host/db",
        "postgresql://ann@host/db?pasword=ass",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be read") as caught:
        open_store(url)

    assert "ass" not in str(caught.value).replace("password", "")
    assert caught.value.__cause__ is None


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"postgresql://ann@127\.0\.0\.1:1/db") as caught:
        open_store("postgresql://ann:s3cret@127.0.0.1:1/db?connect_timeout=2")

    assert "s3cret" not in f"{caught.value} {caught.value.__cause__!r}"


@pytest.mark.parametrize("bad", ["Ann", "pg_mine", "a-b", "", "x" * 49, 'a";'])
def test_a_name_that_cannot_be_a_schema_is_refused(bad: str) -> None:
    with pytest.raises(StoreError, match="cannot be the schema"):
        open_store(f"postgresql://host/db?schema={quote(bad)}")


@pytest.mark.parametrize("run_id", ["with\0nul", "half \ud800"])
def test_an_id_that_is_no_text_is_refused_by_name(store: PostgresStore, run_id: str) -> None:
    with pytest.raises(StoreError, match="PostgreSQL cannot keep") as caught:
        store.submit(Batch(starts=[new_run("fine"), replace(new_run("other"), id=run_id)]))

    assert repr(run_id) in caught.value.what
    assert store.run_by_id("fine") is None
    with pytest.raises(StoreError, match="PostgreSQL cannot keep"):
        store.run_by_id(run_id)


def test_an_id_that_is_too_long_for_an_index_is_refused(store: PostgresStore) -> None:
    # Not one letter many times: that is packed.
    run_id = "".join(chr(0x4E00 + number) for number in range(3_000))

    with pytest.raises(StoreError, match="cannot be kept"):
        store.submit(Batch(starts=[new_run(run_id, seed=b"s" * 16)]))


def test_a_server_that_takes_no_writes_is_read_only(store: PostgresStore) -> None:
    error = psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction")

    fault = faults.fault_of(error, store.url)

    assert isinstance(fault, StoreReadOnly)


@pytest.fixture
def small_disk(store: PostgresStore) -> Iterator[Path]:
    """A file system of 4 MiB that belongs to the server's user."""
    (folder,) = store._database.rows("setting", "data_directory")[0]
    if not Path(folder).exists():
        pytest.skip("the server is on another machine")
    disk = Path(mkdtemp(prefix="perdure-disk-"))
    owner = Path(folder).stat()
    options = f"size=4m,uid={owner.st_uid},gid={owner.st_gid},mode=700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
    disk.rmdir()


def test_what_a_full_disk_refused_can_be_written_when_there_is_space(
    store: PostgresStore, lease: Lease, small_disk: Path
) -> None:
    schema = store._database.place.schema
    run = start(store, lease)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    with psycopg.connect(**store._database.place.parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(f"CREATE TABLESPACE {schema} LOCATION '{small_disk}'".encode())
        connection.execute(f"ALTER TABLE {schema}.record SET TABLESPACE {schema}".encode())

        refused = fill(store, lease, run)
        kept = store.records(run)
        ballast.unlink()
        store.commit(lease, refused)

        assert len(kept) == refused.records[0].seq > 0
        assert len(store.records(run)) == len(kept) + 1
        connection.execute(f"ALTER TABLE {schema}.record SET TABLESPACE pg_default".encode())
        connection.execute(f"DROP TABLESPACE {schema}".encode())


def fill(store: PostgresStore, lease: Lease, run: int) -> Batch:
    """Write until the store is full; give the batch that it refused."""
    import random

    for seq in range(100):
        batch = Batch(records=[record(run, seq, random.Random(seq).randbytes(100_000))])
        try:
            store.commit(lease, batch)
        except StoreFull:
            return batch
    raise AssertionError("the store was never full")


def test_a_closed_store_says_so(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        store.submit(Batch(messages=[Message(0, 1, MessageKind.SIGNAL, "a", None, "", 1)]))
    with pytest.raises(StoreUnavailable, match="closed"):
        store.run_by_id("a")
