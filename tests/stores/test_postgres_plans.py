"""What is asked often is found by an index, also in a store with much that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from perdure.core.records import Status
from perdure.stores.base import RunQuery
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.arrays import numbers, payloads, texts
from perdure.stores.postgres.link import Link

RUNS = 60_000
EVENTS = 60_000
GLANCE = (
    10**9, texts(["checkout"]), 1, 1, 1, 0, 0, None, numbers([7]), numbers([3]), numbers([EVENTS // 2]),
    numbers([7]), numbers([0]),
)  # fmt: skip
DEAD = (
    numbers([7]), numbers([EVENTS + 6]), numbers([6]), texts(["k7"]), numbers([3]), numbers([0]),
    payloads([None]), numbers([5]), numbers([1]), numbers([0]), 1,
)  # fmt: skip
WANTED = (numbers([10]), numbers([3]), texts(['["9"]']), texts(["s"]), numbers([1]))
GIVEN = (numbers([2]), texts(['["9"]']), numbers([10]), numbers([3]), texts(['["10"]']), 100)
TABLES = ("run", "tag", "record", "message", "job", "event", "lane", "dead", "correlated", "awaiting")
FILL = """
INSERT INTO {s}.run (number, id, generation, latest, workflow, status, lease, wake_at_ms, crashes, parent,
    parent_key, on_parent_close, created_at_ms, ended_at_ms, python, seed, input, output)
SELECT n, 'order-' || n, 1, true, CASE WHEN n % 20000 = 0 THEN 'rare' ELSE 'checkout' END,
    CASE WHEN n % 10 = 0 THEN 1 WHEN n % 15000 = 1 THEN 2 WHEN n % 9000 = 2 THEN 4 ELSE 3 END,
    1, CASE WHEN n % 10 = 0 THEN 1000000 + n END, 0, CASE WHEN n % 5000 = 5 THEN n - 1 END, '', 'cancel', n,
    CASE WHEN n % 10 <> 0 AND n % 15000 <> 1 THEN n END, '3.11', '\\x00', repeat('x', 60)::bytea, '\\x00'
FROM generate_series(1, {runs}) AS n;
INSERT INTO {s}.tag SELECT n, 'team', 'red' FROM generate_series(1, {runs}, 1000) AS n;
INSERT INTO {s}.lease VALUES (1, true, false, 'w', 1, 0, 9999999999999, 1);
INSERT INTO {s}.job SELECT n, '0/0/render', CASE WHEN n % 1000 = 0 THEN 'gpu' ELSE 'other' END, 'render',
    'shop:render', 7, '\\x00', n, CASE WHEN n % 500 = 0 THEN 0 WHEN n % 70 = 0 THEN 1 ELSE 0 END
FROM generate_series(10, {runs}, 10) AS n;
INSERT INTO {s}.stream VALUES (3, 'orders'), (4, 'others');
INSERT INTO {s}.event SELECT 3 + n % 2, n, 'e' || n, '', 'placed', 1, 'k', n, n, '', '\\x00',
    CASE WHEN n % 2 = 0 THEN int8send(n) END
FROM generate_series(1, {events}) AS n;
INSERT INTO {s}.subscription SELECT n, 3, 'handler-' || n, 16 FROM generate_series(1, 100) AS n;
INSERT INTO {s}.lane SELECT n, lane, 1, 0, '{{}}'
FROM generate_series(1, 100) AS n, generate_series(0, 15) AS lane;
INSERT INTO {s}.correlation SELECT n, 3 + n % 2, 'placed', '["o"]', {events}
FROM generate_series(1, 4) AS n;
INSERT INTO {s}.correlated SELECT 1 + n % 4, '["' || n % 500 || '"]', n
FROM generate_series(1, {events}) AS n;
INSERT INTO {s}.awaiting SELECT n, 1 + n % 4, '["' || n || '"]', 's', n / 2, n % 2
FROM generate_series(1, {events}) AS n;
INSERT INTO {s}.dead SELECT 1 + n % 100, n, n % 16, 'k' || n % 9, 1, 1, NULL, n
FROM generate_series(1, {events}, 10) AS n;
"""


@pytest.fixture(scope="module")
def store(postgres_server: str) -> Iterator[PostgresStore]:
    """A store with many runs: most have ended, a tenth is asleep."""
    from tests.postgres import with_schema

    opened = PostgresStore(with_schema(postgres_server, "perdure_test_plans"))
    fill = FILL.format(s='"perdure_test_plans"', runs=RUNS, events=EVENTS)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(fill.encode())
        for table in TABLES:
            connection.execute(f"VACUUM ANALYZE perdure_test_plans.{table}".encode())
        yield opened
        opened.close()
        connection.execute("DROP SCHEMA perdure_test_plans CASCADE")


def plan(store: PostgresStore, text: str, *bindings: Any) -> str:
    rows = store._database.read(lambda link: link.query(f"EXPLAIN (ANALYZE, BUFFERS) {text}", *bindings))
    return "\n".join(line for (line,) in rows)


def rows_read(text: str) -> int:
    """The most rows that any part of a plan met."""
    import re

    met = [float(found) for found in re.findall(r"rows=([\d.]+) loops", text)]
    dropped = [float(found) for found in re.findall(r"Rows Removed by Filter: (\d+)", text)]
    return int(max([*met, *dropped]))


@pytest.mark.parametrize(
    ("name", "bindings", "rows_max"),
    [
        ("glance", GLANCE, 16),
        ("glance_and_renew", (*GLANCE, None), 16),
        ("free_due", (5, texts(["checkout"]), 100), 5),
        ("free_due", (10**9, texts(["checkout"]), 100), 5),
        ("free_with_messages", (0, texts(["checkout"]), 100), 5),
        ("claim", (2, numbers([10, 20, 30]), 8), 5),
        ("wake_runs", (numbers([1, 2]), numbers([0, 0]), numbers([10, 20])), 5),
        ("sleeping_runs", (1, 0, 0, 1_000_500, 100), 101),
        ("parked_runs", (0, 10), 10),
        ("messages", (0, 1, 100), 5),
        ("latest_run", ("order-77",), 1),
        ("children", (4,), 3),
        ("ended_before", (100, 50), 60),
        ("loaded_runs", (numbers([1, 2, 3]),), 3),
        ("stopped_runs", (numbers([1, 2, 10]),), 3),
        ("missing_runs", (numbers([1, 2, 10]),), 3),
        ("attempted", (0, 10**6), 3),
        ("free_jobs", (texts(["gpu"]), texts(["render"]), 0, 5), 5),
        ("free_jobs", (texts(["gpu"]), texts(["render"]), 1, 5), 5),
        ("free_jobs", (texts(["nobody's"]), texts(["render"]), 0, 5), 5),
        ("jobs", (70,), 1),
        ("events_after", (3, 500, 20), 20),
        ("events_after", (3, EVENTS, 20), 1),
        ("last_event", (4, EVENTS), 1),
        ("unsettled_events", (4, EVENTS - 20), 10),
        ("lanes_to_claim", (numbers([7]), 1, 1, None), 16),
        ("claim_lanes", (numbers([7]), 1, numbers([])), 16),
        ("dead_keys", (numbers([7]),), 60),
        ("dead_events", (7, 0, 5, None, None, None), 5),
        ("dead_events", (7, 0, 5, numbers([6]), "k7", None), 5),
        ("held_keys", (7,), 60),
        ("due_events", (7, 6, "k7", 5), 60),
        ("holding", (7, 6, "k7"), 60),
        ("waits_due", (7, 6), 1),
        ("standings", (), 100),
        ("redrivable", (7, 1, 5, None, None, None), 60),
        ("share_editions", (numbers([7]),), 1),
        ("clear_dead", (numbers([7]), numbers([6])), 1),
        ("insert_behind", DEAD, 60),
        ("halt_keys", DEAD, 60),
        (
            "mark_lanes",
            (
                numbers([1]),
                texts(["{}"]),
                numbers([7]),
                numbers([3]),
                numbers([0]),
                texts(["[]"]),
                numbers([0]),
                1,
            ),
            1,
        ),
        ("lanes_that_stand", (7,), 16),
        ("heads_between", (3, 20_000, 50_000, 100), 100),
        ("heads_before", (3, 20_000, 100), 100),
        ("kept_by", (3,), 2),
        ("witness_event", (3, 3, "e3"), 2),
        ("correlations", (), 4),
        ("events_to_enter", (3, 500, "placed", 20), 20),
        ("take_asking", (numbers([1]), 20), 1),
        ("want_events", WANTED, 2),
        ("events_to_give", GIVEN, 60),
        ("give_awaited", (numbers([9]), numbers([2]), texts(['["9"]']), numbers([99]), numbers([1])), 1),
        ("remove_runs", (numbers([50]),), 1),
    ],
)
def test_a_statement_that_is_run_often_reads_few_rows(
    store: PostgresStore, name: str, bindings: tuple[Any, ...], rows_max: int
) -> None:
    found = plan(store, store._database._sql[name], *bindings)

    assert "Seq Scan on run" not in found
    assert rows_read(found) <= rows_max, found


@pytest.mark.parametrize(
    "query",
    [
        RunQuery(),
        RunQuery(workflow="rare"),
        RunQuery(workflow="unknown"),
        RunQuery(statuses=(Status.PARKED,)),
        RunQuery(statuses=(Status.FAILED, Status.TIMED_OUT)),
        RunQuery(id_prefix="order-5999"),
        RunQuery(id_prefix="nothing"),
        RunQuery(parent=4),
        RunQuery(tags=(("team", "red"),)),
        RunQuery(created_after_ms=59_990),
        RunQuery(created_before_ms=50),
        RunQuery(workflow="rare", statuses=(Status.RUNNING,)),
    ],
    ids=repr,
)
def test_a_list_of_runs_reads_few_rows(store: PostgresStore, query: RunQuery) -> None:
    conditions, bindings = store._reader._conditions(query)
    text = f"{store._reader._list_runs} {' AND '.join(conditions)} ORDER BY number DESC LIMIT 100"

    found = plan(store, text, *bindings)

    assert rows_read(found) <= 6_000, found


HOT = [
    ("wake_runs", (numbers([1]), numbers([0]), numbers([1]))),
    ("end_runs", (numbers([3]), payloads([b""]), numbers([0]), numbers([0]), numbers([1]), 1)),
    ("free_runs", (numbers([1]),)),
    ("forget_attempts", (numbers([1]),)),
    ("forget_records", (numbers([1]), numbers([1]))),
    ("take_messages", (numbers([1]),)),
    ("claim", (1, numbers([1]), 8)),
    ("note_requests", (numbers([1]), texts(["q"]))),
    ("known_requests", (numbers([1]), texts(["q"]))),
    ("had_requests", (numbers([1]), numbers([1]), texts(["q"]))),
    (
        "insert_messages",
        (numbers([1]), numbers([1]), numbers([2]), texts([""]), payloads([b""]), texts([""]), numbers([1])),
    ),
    (
        "insert_outcomes",
        (
            numbers([1]),
            numbers([1]),
            numbers([9]),
            texts([""]),
            payloads([b""]),
            texts([""]),
            numbers([1]),
            1,
        ),
    ),
    ("lock_jobs", (numbers([1]), texts(["k"]))),
    (
        "queue_jobs",
        (
            numbers([1]),
            texts(["k"]),
            texts(["t"]),
            texts(["s"]),
            texts(["m:s"]),
            numbers([7]),
            payloads([b""]),
            numbers([1]),
        ),
    ),
    ("withdraw_jobs", (numbers([1]), texts(["k"]))),
    ("remove_jobs", (numbers([1]),)),
    ("free_jobs", (texts(["t"]), texts(["s"]), 0, 100)),
    ("lock_free_jobs", (texts(["t"]), texts(["s"]), 0, 100)),
    ("claim_jobs", (1, numbers([1]), texts(["k"]))),
    ("attempts_of_jobs", (numbers([1]), texts(["k"]))),
    ("held_jobs", (1,)),
    ("jobs", (1,)),
    ("messages", (0, 1, 100)),
    ("free_with_messages", (0, texts(["w"]), 100)),
    ("free_due", (0, texts(["w"]), 100)),
    ("glance", GLANCE),
    ("glance_and_renew", (*GLANCE, None)),
    ("lock_free_due", (0, texts(["w"]), 100)),
    ("sleeping_runs", (1, 0, 0, 1, 1)),
    ("latest_of_ids", (texts(["a"]),)),
    ("leave_continued", (texts(["a"]),)),
    ("loaded_runs", (numbers([1]),)),
    ("stopped_runs", (numbers([1]),)),
    ("missing_runs", (numbers([1]),)),
    ("loaded_records", (numbers([1]),)),
    ("loaded_messages", (numbers([1]),)),
    ("loaded_attempts", (numbers([1]),)),
    ("events_after", (1, 1, 1)),
    ("last_event", (1, 1)),
    ("unsettled_events", (1, 1)),
    ("subscription_of", (1, "h")),
    ("streams_of_numbers", (numbers([1]),)),
    ("lanes_to_claim", (numbers([1]), 1, 1, None)),
    ("claim_lanes", (numbers([1]), 1, numbers([1]))),
    ("dead_keys", (numbers([1]),)),
    ("dead_events", (1, 1, 1, numbers([1]), "k", 1)),
    ("held_keys", (1,)),
    ("due_events", (1, 1, "k", 1)),
    ("holding", (1, 1, "k")),
    ("waits_due", (1, 1)),
    ("share_editions", (numbers([1]),)),
    ("clear_dead", (numbers([1]), numbers([1]))),
    (
        "mark_lanes",
        (
            numbers([1]),
            texts(["{}"]),
            numbers([1]),
            numbers([1]),
            numbers([0]),
            texts(["[]"]),
            numbers([0]),
            1,
        ),
    ),
    ("events_to_enter", (1, 1, "t", 1)),
    ("take_asking", (numbers([1]), 1)),
    ("want_events", (numbers([1]), numbers([1]), texts(["v"]), texts(["s"]), numbers([1]))),
    ("events_to_give", (numbers([1]), texts(["v"]), numbers([1]), numbers([1]), texts(["v"]), 1)),
    ("give_awaited", (numbers([1]), numbers([1]), texts(["v"]), numbers([1]), numbers([1]))),
]
KEYS = ("number ", "id ", "run ", "pos ", "lease ", "stream ", "subscription ", "correlation ")
SMALL = ("lease", "correlation", "stream_clock")
"""What is read whole."""


@pytest.mark.parametrize(("name", "bindings"), HOT, ids=[name for name, _ in HOT])
def test_a_plan_that_is_made_while_the_tables_are_empty_and_kept_goes_by_keys(
    new: PostgresStore, name: str, bindings: tuple[Any, ...]
) -> None:
    def work(link: Link) -> list[dict[str, Any]]:
        with link.transaction():
            pass
        link.query("SET LOCAL plan_cache_mode = force_generic_plan")
        link.run(name, *bindings)
        # An answer of the server's, and so no danger.
        ((prepared,),) = link.query(
            "SELECT name FROM pg_prepared_statements ORDER BY prepare_time DESC LIMIT 1"
        )
        values = ", ".join("'{1}'" if isinstance(value, bytes) else "1" for value in bindings)
        ((explained,),) = link.query(f"EXPLAIN (FORMAT JSON) EXECUTE {prepared} ({values})")
        return explained

    ((top),) = new._database.write(work)

    scans = list(scans_of(top["Plan"]))
    assert scans
    assert [one for one in scans if not any(f"({key}" in one for key in KEYS)] == []


@pytest.fixture
def new(postgres_url: str) -> Iterator[PostgresStore]:
    """A store with nothing in it."""
    opened = PostgresStore(postgres_url)
    yield opened
    opened.close()


def scans_of(node: dict[str, Any]) -> Iterator[str]:
    """By what each table but those that are small is looked through."""
    for inner in node.get("Plans", []):
        yield from scans_of(inner)
    index, table = node.get("Index Name"), node.get("Relation Name")
    if table in SMALL:
        return
    if index is not None:
        yield node.get("Index Cond", f"all of {index}").replace(").", "(").replace("run.", "")
    elif node["Node Type"] == "Seq Scan":
        yield f"all of {table}"
