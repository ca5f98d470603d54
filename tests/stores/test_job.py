"""Jobs: steps that wait for a worker with a tag. One has each, and what it comes to is sent once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from perdure.core.records import Message, MessageKind, Status
from perdure.errors import LeaseLost
from perdure.stores.base import AttemptRow, Batch, ClaimedJob, JobRow, JobStand, Lease, Store
from tests.stores.build import LARGE, claim, end, open_again, park, row_of, start, submit


@pytest.fixture
def lease(store: Store) -> Lease:
    """The lease on `store`, until 10 s past the epoch, of a worker that has no tag."""
    return store.acquire("first", now_ms=0, ttl_ms=10_000)


@pytest.fixture
def second(other: Store) -> Lease:
    """The lease on `other`, for long, of a worker that has a tag."""
    return other.acquire("second", now_ms=0, ttl_ms=1_000_000, tags=["gpu"])


def job(run: int, key: str = "0/1/render", **changes: Any) -> JobRow:
    """A step to be queued."""
    row = JobRow(run, key, "gpu", "render", "shop:render", 7, b"[1]", 1_000)
    return row._replace(**changes)


def take(
    store: Store, lease: Lease, *, tags: list[str] | None = None, limit: int = 100, suspect: bool = True
) -> list[ClaimedJob]:
    """Claim jobs."""
    return store.claim_jobs(lease, tags=tags or ["gpu"], steps=["render"], limit=limit, suspect=suspect)


def outcome(run: int, key: str = "0/1/render", payload: bytes = b"done") -> Message:
    """What a job came to."""
    return Message(0, run, MessageKind.STEP_ENDED, key, payload, "", 1_500)


def sent_to(store: Store, run: int) -> list[bytes | None]:
    return [message.payload for message in store.messages_for(run)]


# -- queueing and claiming -------------------------------------------------------------------------


def test_a_job_is_claimed_once_with_all_that_is_needed_to_run_it(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    tried = [AttemptRow(run, "0/1/render", number, b'"failed"', None, 5) for number in (1, 2)]
    store.commit(lease, Batch(jobs=[job(run, arguments=LARGE)], attempts=tried))
    before = store.jobs(run), store.waiting_jobs()

    claimed, again = take(other, second), take(other, second)

    row = row_of(store, run)
    assert claimed == [ClaimedJob(job(run, arguments=LARGE), 0, row.id, row.workflow, row.seed, tried)]
    assert again == []
    assert before == ([JobStand("0/1/render", "gpu", None)], {"gpu": 1})
    assert (store.jobs(run), store.waiting_jobs()) == ([JobStand("0/1/render", "gpu", "second")], {})
    assert other.held_jobs(second) == {(run, "0/1/render")}
    assert list(store.check()) == []


def test_only_jobs_with_the_tag_and_a_known_step_are_claimed_the_oldest_first(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    jobs = [
        job(run, "a", asked_at_ms=3),
        job(run, "b", asked_at_ms=1),
        job(run, "c", tag="other"),
        job(run, "d", step="unknown"),
        job(run, "e", step="by source", source="render", asked_at_ms=2),
    ]
    store.commit(lease, Batch(jobs=jobs))

    first, rest = take(other, second, limit=2), take(other, second)

    assert [claimed.job.key for claimed in first] == ["b", "e"]
    assert [claimed.job.key for claimed in rest] == ["a"]
    assert store.waiting_jobs() == {"gpu": 1, "other": 1}


def test_a_worker_takes_its_share_of_what_others_with_the_tag_could_take(
    store: Store, lease: Lease, other: Store, second: Lease, open_store: Callable[[], Store]
) -> None:
    open_store().acquire("third", now_ms=0, ttl_ms=10_000, tags=["more", "gpu"])
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, key) for key in "abcde"]))

    claimed = take(other, second)

    assert [each.job.key for each in claimed] == ["a", "b", "c"]
    assert [each.tags for each in store.workers(now_ms=1)] == [(), ("gpu",), ("more", "gpu")]


def test_of_two_that_claim_at_once_one_has_each_job(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, f"{number:02}") for number in range(20)]))
    both = Barrier(2)

    def claim_all(of: Store, under: Lease) -> list[str]:
        both.wait()
        return [claimed.job.key for claimed in take(of, under)]

    with ThreadPoolExecutor(2) as pool:
        ones = pool.submit(claim_all, store, lease)
        others = pool.submit(claim_all, other, second)
        keys = [*ones.result(), *others.result()]

    assert len(keys) == len(set(keys))
    assert sorted([*keys, *(each.job.key for each in take(other, second))]) == [f"{n:02}" for n in range(20)]


def test_a_job_that_is_asked_for_again_is_the_same_job(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run), job(run)]))
    take(other, second)

    store.commit(lease, Batch(jobs=[job(run)]))

    assert take(other, second) == []
    assert store.jobs(run) == [JobStand("0/1/render", "gpu", "second")]


@pytest.mark.parametrize("change", [{"digest": 8, "arguments": LARGE}, {"tag": "big"}])
def test_a_job_that_is_asked_for_with_other_arguments_or_another_tag_is_another(
    change: Any, store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, arguments=LARGE)]))
    take(other, second)

    store.commit(lease, Batch(jobs=[job(run, **change)]))

    assert other.held_jobs(second) == set()
    assert other.commit(second, Batch(messages=[outcome(run)])).messages == [0]
    assert [claimed.job for claimed in take(other, second, tags=["gpu", "big"])] == [job(run, **change)]
    assert list(store.check()) == []


def test_a_job_whose_outcome_waits_for_its_run_is_not_queued_again(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run)]))
    take(other, second)
    other.commit(second, Batch(messages=[outcome(run)]))

    store.commit(lease, Batch(jobs=[job(run), job(run, "another")]))

    assert [stand.key for stand in store.jobs(run)] == ["another"]


# -- what it came to -------------------------------------------------------------------------------


def test_the_outcome_takes_the_job_away_and_reaches_its_run(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, arguments=LARGE)]))
    take(other, second)

    (position,) = other.commit(second, Batch(messages=[outcome(run, payload=LARGE)])).messages

    assert position > 0
    assert store.jobs(run) == []
    assert [message.payload for message in store.messages(lease, after=0, limit=10).messages] == [LARGE]
    assert list(store.check()) == []


def test_a_second_outcome_is_dropped(store: Store, lease: Lease, other: Store, second: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run)]))
    take(other, second)
    other.commit(second, Batch(messages=[outcome(run)]))

    answer = other.commit(second, Batch(messages=[outcome(run, payload=b"again")]))

    assert answer.messages == [0]
    assert sent_to(store, run) == [b"done"]


def test_who_does_not_have_the_job_sends_no_outcome(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run)]))

    unclaimed = other.commit(second, Batch(messages=[outcome(run)])).messages
    take(other, second)
    not_its_own = store.commit(lease, Batch(messages=[outcome(run)])).messages

    assert (unclaimed, not_its_own) == ([0], [0])
    assert sent_to(store, run) == []
    assert [stand.worker for stand in store.jobs(run)] == ["second"]


def test_a_worker_whose_lease_has_ended_sends_nothing_and_another_has_the_job(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(other, second)
    other.commit(second, Batch(jobs=[job(run)]))
    take(store, lease)
    claim(other, second, now_ms=10_001)  # which ends the first lease

    (claimed,) = take(other, second)

    assert claimed.crashes == 1
    other.commit(second, Batch(jobs=[job(run, "another")]))
    with pytest.raises(LeaseLost):
        store.commit(lease, Batch(messages=[outcome(run)]))
    with pytest.raises(LeaseLost):
        take(store, lease)
    assert sent_to(other, run) == []
    assert other.commit(second, Batch(messages=[outcome(run)])).messages[0] > 0


# -- workers that go -------------------------------------------------------------------------------


def test_the_jobs_of_a_worker_that_gave_its_lease_back_are_free_and_no_crash_is_counted(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(other, second)
    other.commit(second, Batch(jobs=[job(run)]))
    take(store, lease)
    store.release(lease)
    waiting = other.waiting_jobs()

    (claimed,) = take(other, second)

    assert claimed.crashes == 0
    assert waiting == {"gpu": 1}


def test_a_job_that_two_workers_died_of_is_taken_one_at_a_time(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, "a"), job(run, "b")]))
    for at_ms in (20_000, 40_000):
        take(store, lease)
        lease = store.acquire("next", now_ms=at_ms, ttl_ms=10_000, tags=["gpu"])
        claim(store, lease, now_ms=at_ms)
    store.commit(lease, Batch(jobs=[job(run, "c")]))

    taken = {claimed.job.key: claimed.crashes for claimed in take(store, lease)}
    later = take(store, lease, suspect=False)

    assert later == []
    assert taken == {"c": 0, "a": 2}


def test_the_lease_of_a_dead_worker_is_remembered_while_it_has_a_job(
    store: Store, lease: Lease, other: Store, second: Lease, open_store: Callable[[], Store]
) -> None:
    run = start(other, second)
    other.commit(second, Batch(jobs=[job(run)]))
    take(store, lease)
    claim(other, second, now_ms=10_001)
    open_store().acquire("third", now_ms=20_000, ttl_ms=10_000)  # which removes leases that nobody asks for

    (claimed,) = take(other, second)

    assert claimed.crashes == 1


# -- runs that go ----------------------------------------------------------------------------------


def test_a_job_that_is_withdrawn_is_gone_for_who_has_it(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, key) for key in "abc"]))
    take(other, second)

    store.commit(lease, Batch(withdrawn=[(run, "a"), (run, "no such")]))
    held = other.held_jobs(second)
    store.commit(lease, Batch(jobs=[job(run, "d")], withdrawn=[(run, "")]))

    assert held == {(run, "b"), (run, "c")}
    assert other.held_jobs(second) == set()
    assert store.jobs(run) == []
    assert other.commit(second, Batch(messages=[outcome(run, "a")])).messages == [0]


@pytest.mark.parametrize("ends", [end, park])
def test_the_jobs_of_a_run_that_does_not_run_are_neither_held_nor_claimed(
    ends: Any, store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, "a", asked_at_ms=1), job(run, "b", asked_at_ms=2)]))
    take(other, second, limit=1)

    store.commit(lease, Batch(ends=[ends(run)]))

    assert other.held_jobs(second) == set()
    assert take(other, second) == []


def test_a_run_that_opens_again_begins_its_jobs_afresh(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run)], ends=[park(run)]))

    store.commit(lease, Batch(ends=[open_again(run)]))

    assert row_of(store, run).status == Status.RUNNING
    assert store.jobs(run) == []


def test_an_outcome_is_dropped_when_the_run_has_ended(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run)]))
    take(other, second)
    store.commit(lease, Batch(ends=[end(run)]))

    answer = other.commit(second, Batch(messages=[outcome(run)]))

    assert answer.messages == [0]
    assert sent_to(store, run) == []


def test_a_free_run_is_claimed_when_its_step_has_ended(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = submit(store)
    claim(store, lease, now_ms=1)
    store.commit(lease, Batch(jobs=[job(run)], wakes=[(None, 0, run)]))
    take(other, second)
    store.release(lease)
    before = claim(other, second, now_ms=2)

    other.commit(second, Batch(messages=[outcome(run)]))

    assert before == []
    assert claim(other, second, now_ms=3) == [run]


def test_jobs_go_with_their_run_when_it_is_removed(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(jobs=[job(run, arguments=LARGE)], ends=[end(run)]))

    store.remove_ended(before_ms=10_000, limit=10)

    assert store.jobs(run) == []
    assert list(store.check()) == []
