"""Jobs on PostgreSQL, where two transactions can be under way at once."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import psycopg

from perdure.core.records import Message, MessageKind
from perdure.stores.base import Batch, Committed, JobRow
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from perdure.stores.postgres.messages import send_messages
from tests.stores.build import start

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"


def test_a_job_that_is_asked_for_while_it_ends_is_not_queued_again(
    postgres_server: str, postgres_url: str
) -> None:
    ours, theirs = (PostgresStore(postgres_url, believes_caller=True) for _ in range(2))
    lease = ours.acquire("ours", now_ms=0, ttl_ms=1_000_000)
    other = theirs.acquire("theirs", now_ms=0, ttl_ms=1_000_000, tags=["gpu"])
    run = start(ours, lease)
    job = JobRow(run, "0/0/render", "gpu", "render", "shop:render", 7, b"[1]", 1_000)
    ours.commit(lease, Batch(jobs=[job]))
    theirs.claim_jobs(other, tags=["gpu"], steps=["render"], limit=1, suspect=True)
    outcome = Message(0, run, MessageKind.STEP_ENDED, job.key, b"done", "", 1_500)
    asked: list[Future[Committed]] = []

    def end_and_be_asked(link: Link) -> None:
        with link.transaction(theirs._leases.fence(other)):
            pass
        send_messages(link, [outcome], lease=other.number)
        asked.append(pool.submit(ours.commit, lease, Batch(jobs=[job])))
        with psycopg.connect(postgres_server, autocommit=True) as watching:
            while watching.execute(WAITING).fetchall() == [(0,)] and not asked[0].done():
                pass

    with ThreadPoolExecutor(1) as pool:
        theirs._database.write(end_and_be_asked)
        asked[0].result()

    assert ours.jobs(run) == []
    assert [message.payload for message in ours.messages_for(run)] == [b"done"]
    for store in (ours, theirs):
        store.close()
