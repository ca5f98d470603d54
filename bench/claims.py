"""How fast two workers claim and finish what nobody has in hand: 10,000 runs of one step.

How many runs a client starts and two workers end a second, as the client sees it. Then a third worker, whose
10,000 runs all stand in a step, is killed: how many of these end a second at the two others, from
the first end to the last; and how evenly they went: what the one with more of them did.

Limits: rows a second that go into a log with an index, in commits of 2,000 (a run that is claimed
writes at least three: it is claimed, its step recorded, ended); half of the runs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from perdure import Client
from perdure.core.records import RunRow
from perdure.stores.base import RunQuery
from perdure.stores.opening import open_store

from .measure import Figure, Work, rows_per_second
from .server import running_server
from .work import url_of
from .worker import one_step, worker

_AT_ONCE = 200
"""Starts that the client has under way."""
_LOOK_EVERY_S = 0.1
"""To count them takes a while, and is not what is measured."""


class _Found(NamedTuple):
    """What came of it."""

    started_and_ended: float
    """A second."""
    claimed_and_ended: float
    """A second."""
    larger_share: float


def measure(work: Work) -> Iterator[Figure]:
    runs = work.size(10_000, quick=60)
    with running_server(work) as server, server.fresh_url() as url:
        before = server.write_log(runs)[0]
        found = asyncio.run(_measure_store(url, runs))
        yield from _figures("PostgreSQL", found, (before + server.write_log(runs)[0]) / 2)
    before = rows_per_second(work, rows=runs)
    found = asyncio.run(_measure_store(url_of(work.fresh_path()), runs))
    yield from _figures("SQLite", found, (before + rows_per_second(work, rows=runs)) / 2)


def _figures(store: str, found: _Found, limit: float) -> Iterator[Figure]:
    rows = "rows/s in commits of 2,000"
    rates = {
        f"started by a client and ended, {store}": found.started_and_ended,
        f"claimed from the dead and ended, {store}": found.claimed_and_ended,
    }
    for name, rate in rates.items():
        yield Figure(name, "runs/s", [rate], rows, [limit], better="more")
    share = 100 * found.larger_share
    yield Figure(f"larger share, {store}", "% of runs", [share], "half", [50.0])


async def _measure_store(url: str, runs: int) -> _Found:
    async with Client(url) as client:
        with worker("serve", url), worker("serve", url):
            began = time.perf_counter()
            for first in range(0, runs, _AT_ONCE):
                count = min(_AT_ONCE, runs - first)
                await asyncio.gather(*(client.start(one_step(n)) for n in range(count)))
            await _until_ended(client, runs)
            rate = runs / (time.perf_counter() - began)
            with worker("hold", url, runs) as victim:
                victim.kill()
                await _until_ended(client, 2 * runs)
    rows = _runs_of(url, "held")
    ends = [row.ended_at_ms or 0 for row in rows]
    leases = Counter(row.lease for row in rows)
    larger_share = max(leases.values()) / runs
    return _Found(rate, 1_000 * runs / max(1, max(ends) - min(ends)), larger_share)


async def _until_ended(client: Client, runs: int) -> None:
    while (await client.counts()).get("completed", 0) < runs:  # noqa: ASYNC110 (others end them)
        await asyncio.sleep(_LOOK_EVERY_S)


def _runs_of(url: str, workflow: str) -> Sequence[RunRow]:
    store = open_store(url, only_look=True)
    rows: list[RunRow] = []
    before: int | None = None
    while page := store.list_runs(RunQuery(workflow=workflow, limit=1_000, before=before)):
        rows += page
        before = page[-1].number
    store.close()
    return rows
