"""A store on PostgreSQL with a million runs that have ended and 100,000 that are asleep, beside an empty one.

How long a page of 100 runs takes to list, for each filter that a person may set: the slowest of them. How
many steps a second 1,000 runs of 10 steps make there. The rows are made by the server itself.

Limits: the same page by its primary key, in plain SQL on one connection; the same runs in an empty store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from perdure import Client, Engine, RunStatus
from perdure.stores.opening import open_store

from .measure import Figure, Work, percentile
from .server import Server, running_server
from .work import one_by_one

STEPS = 10
_FILL = """
INSERT INTO {s}.run (number, id, generation, latest, workflow, status, lease, wake_at_ms, crashes, parent_key,
    on_parent_close, created_at_ms, ended_at_ms, python, seed, input, output)
SELECT nextval('{s}.run_number'), 'filled-' || n, 1, true, 'filled_' || n % 50,
    CASE WHEN n % 11 = 0 THEN 1 WHEN n % 20000 = 1 THEN 2 WHEN n % 5000 = 2 THEN 4 ELSE 3 END, 0,
    CASE WHEN n % 11 = 0 THEN 4000000000000 + n END, 0, '', 'cancel', {now} - 10 * ({runs} - n),
    CASE WHEN n % 11 <> 0 AND n % 20000 <> 1 THEN {now} - 10 * ({runs} - n) + 5 END, '3.11',
    uuid_send(gen_random_uuid()), convert_to('{{"number":' || n || '}}', 'UTF8'), convert_to(n::text, 'UTF8')
FROM generate_series(1, {runs}) AS n;
INSERT INTO {s}.record (run, seq, kind, key, digest, at_ms, payload)
SELECT number, 0, 1, '0/0/nothing', 7, created_at_ms, output FROM {s}.run WHERE status = 3;
INSERT INTO {s}.tag (run, key, value)
SELECT number, 'team', 'team-' || number % 1000 FROM {s}.run WHERE number % 10 = 0;
"""
_PAGE = "SELECT * FROM {s}.run WHERE number < $1 ORDER BY number DESC LIMIT 100"


def measure(work: Work) -> Iterator[Figure]:
    runs = work.size(1_100_000, quick=2_000)
    with running_server(work) as server, server.fresh_url() as url, server.fresh_url() as empty:
        _fill(server, url, runs)
        listed, raw = asyncio.run(_list(url, server, runs, work.size(20, quick=2)))
        slowest = max(listed, key=lambda name: listed[name])
        yield Figure(
            f"list 100 of {runs:,} runs, slowest filter", "ms", [listed[slowest]],
            f"100 rows by their key (slowest: {slowest})", [raw], target=100.0,
        )  # fmt: skip
        many, few = [], []
        for _ in work.repeats():
            few.append(asyncio.run(_steps_per_second(empty, work)))
            many.append(asyncio.run(_steps_per_second(url, work)))
        yield Figure(
            f"throughput beside {runs:,} runs", "steps/s", many, "in an empty store", few, better="more",
            target=0.8, target_of="ratio",
        )  # fmt: skip


def _fill(server: Server, url: str, runs: int) -> None:
    open_store(url).close()
    schema = url.rpartition("=")[2]
    now_ms = time.time_ns() // 1_000_000
    for statement in _FILL.format(s=schema, runs=runs, now=now_ms).split(";\n"):
        server.ask(statement)
    for table in ("run", "record", "tag"):
        server.ask(f"VACUUM ANALYZE {schema}.{table}")


async def _list(url: str, server: Server, runs: int, times: int) -> tuple[Mapping[str, float], float]:
    """Milliseconds for a page, by filter; and for the same many rows by their key."""
    recent = datetime.fromtimestamp(time.time() - runs / 200, UTC)
    filters: Sequence[tuple[str, dict[str, Any]]] = (
        ("none", {}),
        ("a later page", {"before": runs // 2}),
        ("workflow", {"workflow": "filled_7"}),
        ("workflow, sleeping", {"workflow": "filled_7", "status": RunStatus.RUNNING}),
        ("parked", {"status": RunStatus.PARKED}),
        ("failed", {"status": RunStatus.FAILED}),
        ("workflow, failed", {"workflow": "filled_7", "status": RunStatus.FAILED}),
        ("sleeping", {"status": RunStatus.RUNNING}),
        ("created before", {"created_before": recent}),
        ("created after, failed", {"created_after": recent, "status": RunStatus.FAILED}),
        ("tag", {"tags": {"team": "team-30"}}),
        ("id prefix", {"id_prefix": "filled-777"}),
        ("unknown workflow", {"workflow": "nobody"}),
    )
    found: dict[str, float] = {}
    async with Client(url) as client:
        for name, options in filters:
            spent: list[float] = []
            for _ in range(times):
                began = time.perf_counter()
                await client.list(**options)
                spent.append(time.perf_counter() - began)
            found[name] = 1_000 * percentile(spent, 0.5)
    schema = url.rpartition("=")[2]
    return found, server.query_ms(_PAGE.format(s=schema).replace("$1", str(runs)), times)


async def _steps_per_second(url: str, work: Work) -> float:
    runs = work.size(1_000, quick=20)
    async with Engine(url, workflows=[one_by_one]) as engine:
        await engine.run(one_by_one(STEPS))
        began = time.perf_counter()
        started = await asyncio.gather(*(engine.start(one_by_one(STEPS)) for _ in range(runs)))
        await asyncio.gather(*(run.result() for run in started))
        return runs * STEPS / (time.perf_counter() - began)
