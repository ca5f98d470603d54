"""Moving: a mark closes a store to everybody else, and runs are read and written whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure.core.records import Status
from perdure.errors import LeaseLost, StoreError, StoreInUse, StoreMoved
from perdure.stores.base import (
    AttemptRow,
    Batch,
    JobRow,
    Lease,
    MoveCursor,
    MoveMark,
    MovePage,
    Reply,
    RunQuery,
    StateRow,
    Store,
)
from perdure.stores.sqlite import SqliteStore
from tests.stores.arriving import ARRIVING, arriving
from tests.stores.build import LARGE, claim, end, new_run, park, record, row_of, signal, start, submit

MOVING = ARRIVING._replace(stage="moving")
ALL = 1 << 30


@pytest.fixture
def empty(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Another store of the same kind, which is marked to take what `store` has."""
    kind = "sqlite" if isinstance(store, SqliteStore) else "postgres"
    with arriving(kind, request, tmp_path) as opened:
        yield opened


def fill(store: Store, lease: Lease) -> None:
    """A bit of everything that a store can hold."""
    numbers = [start(store, lease, run_id) for run_id in ("parent", "ended", "parked")]
    child = start(
        store, lease, "child", parent=numbers[0], parent_key="0/0/child", tags=(("b", "2"), ("a", "1"))
    )
    records = [record(numbers[0], 0), record(numbers[0], 1, LARGE), record(numbers[1], 0, None)]
    states = [StateRow(numbers[0], name, 3, payload, 9) for name, payload in (("z", LARGE), ("a", b"1"))]
    attempts = [
        AttemptRow(numbers[0], "0/2/pay", 2, None, LARGE, 8),
        AttemptRow(numbers[0], "0/2/pay", 1, b"{}", None, 7),
    ]
    ends = [end(numbers[1], output=LARGE), park(numbers[2])]
    replies = [Reply("q2", True, LARGE, 6), Reply("q1", False, None, 5)]
    store.commit(lease, Batch(records=records, states=states, attempts=attempts, ends=ends, replies=replies))
    keys = {"0/1/render": LARGE, "0/0/render": b"[1]"}
    jobs = [JobRow(child, key, "gpu", "render", "shop:render", 7, data, 5) for key, data in keys.items()]
    store.commit(lease, Batch(jobs=jobs))
    store.claim_jobs(lease, tags=["gpu"], steps=["render"], limit=1, suspect=True)
    sent = [signal(numbers[2], LARGE), signal(numbers[0], b"1", request="r2"), signal(numbers[0], b"2")]
    store.submit(Batch(messages=[*sent, signal(numbers[0], b"3", request="r1")]))
    store.commit(lease, Batch(ends=[end(numbers[0], Status.CONTINUED)], starts=[new_run("parent")]))
    store.commit(lease, Batch(wakes=[(7_000, 3, numbers[0] + 4)]))
    store.release(lease)


def read(store: Store, *, limit: int = ALL, bytes_max: int = ALL) -> list[MovePage]:
    """All pages but the empty one at the end."""
    pages: list[MovePage] = []
    after = MoveCursor()
    while (page := store.export_page(after, limit=limit, bytes_max=bytes_max)).runs or page.replies:
        pages.append(page)
        after = page.after
    return pages


def without_positions(pages: list[MovePage]) -> list[object]:
    return [
        run._replace(messages=[message._replace(pos=0) for message in run.messages])
        for page in pages
        for run in page.runs
    ] + [reply for page in pages for reply in page.replies]


# -- the mark --------------------------------------------------------------------------------------


def test_a_store_that_took_part_in_no_move_has_no_mark(store: Store) -> None:
    assert store.move_mark() is None


@pytest.mark.parametrize("stage", ["moving", "moved", "arriving"])
def test_a_closed_store_takes_no_start_message_or_lease_and_removes_nothing(
    store: Store, other: Store, stage: str
) -> None:
    run = submit(store) if stage != "arriving" else 1
    mark = MOVING._replace(stage=stage)  # type: ignore[arg-type]

    other.mark_move(None, mark, now_ms=0)

    with pytest.raises(StoreMoved, match=r"there\.db"):
        store.submit(Batch(starts=[new_run("late")]))
    with pytest.raises(StoreMoved):
        store.submit(Batch(messages=[signal(run)]))
    with pytest.raises(StoreMoved):
        store.acquire("late", now_ms=0, ttl_ms=10_000)
    with pytest.raises(StoreMoved):
        store.remove_ended(before_ms=ALL, limit=9)
    assert store.move_mark() == mark
    assert store.run_by_id("late") is None
    assert store.workers(now_ms=0) == []


def test_a_store_that_runs_have_arrived_in_is_open(store: Store) -> None:
    store.mark_move(None, ARRIVING, now_ms=0)

    store.mark_move(ARRIVING, ARRIVING._replace(stage="arrived"), now_ms=0)

    assert submit(store) > 0
    assert store.acquire("w", now_ms=0, ttl_ms=10_000).number > 0


def test_a_store_is_not_closed_while_a_worker_is_alive(store: Store, lease: Lease, other: Store) -> None:
    run = start(store, lease)

    with pytest.raises(StoreInUse, match="'first'"):
        other.mark_move(None, MOVING, now_ms=1)

    assert other.move_mark() is None
    store.commit(lease, Batch(records=[record(run, 0)]))
    assert row_of(store, run).lease == lease.number


def test_a_worker_whose_time_is_over_writes_nothing_more_and_its_runs_are_free(
    store: Store, lease: Lease, other: Store
) -> None:
    run = start(store, lease)

    other.mark_move(None, MOVING, now_ms=10_000)

    with pytest.raises(LeaseLost):
        store.commit(lease, Batch(records=[record(run, 0)]))
    assert row_of(other, run).lease == 0
    assert row_of(other, run).crashes == 1
    assert other.records(run) == []


def test_a_crash_is_counted_once_by_the_move_and_whoever_claims_after_it(
    store: Store, lease: Lease, other: Store
) -> None:
    run = start(store, lease)
    other.mark_move(None, MOVING, now_ms=10_000)
    other.mark_move(MOVING, None, now_ms=10_000)
    second = other.acquire("second", now_ms=10_000, ttl_ms=10_000)

    assert claim(other, second, now_ms=10_000) == [run]

    assert row_of(other, run).crashes == 1


@pytest.mark.parametrize("before", [None, MOVING._replace(turn=2), MOVING._replace(move="m2")])
def test_a_mark_is_changed_only_from_what_it_was_known_to_be(store: Store, before: MoveMark | None) -> None:
    store.mark_move(None, MOVING, now_ms=0)

    with pytest.raises(StoreMoved, match="in other hands"):
        store.mark_move(before, None, now_ms=0)

    assert store.move_mark() == MOVING


@pytest.mark.parametrize("has", ["run", "reply"])
def test_runs_are_not_moved_to_a_store_that_has_something_already(store: Store, has: str) -> None:
    lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
    batch = Batch(starts=[new_run()]) if has == "run" else Batch(replies=[Reply("q", True, b"1", 1)])
    store.commit(lease, batch)
    store.release(lease)

    with pytest.raises(StoreError, match="runs of its own"):
        store.mark_move(None, ARRIVING, now_ms=0)

    assert store.move_mark() is None
    assert len(read(store)) == 1


# -- whole runs ------------------------------------------------------------------------------------


def test_what_one_store_gives_another_keeps(store: Store, lease: Lease, empty: Store) -> None:
    fill(store, lease)
    pages = read(store)

    for page in pages:
        empty.import_page(ARRIVING, page)

    assert without_positions(read(empty)) == without_positions(pages)
    assert list(empty.check()) == []
    assert empty.counts() == store.counts()
    runs = [run for page in pages for run in page.runs]
    assert [len(run.messages) for run in runs] == [3, 0, 1, 0, 0]
    assert [run.requests for run in runs] == [["r1", "r2"], [], [], [], []]
    assert [run.is_latest for run in runs] == [False, True, True, True, True]
    assert runs[3].tags == [("a", "1"), ("b", "2")]
    assert [reply.request for reply in pages[-1].replies] == ["q1", "q2"]


@pytest.mark.parametrize(("limit", "bytes_max"), [(1, ALL), (2, ALL), (ALL, 1), (ALL, 700_000)])
def test_pages_of_any_size_hold_the_same(store: Store, lease: Lease, limit: int, bytes_max: int) -> None:
    fill(store, lease)
    whole = read(store)

    pages = read(store, limit=limit, bytes_max=bytes_max)

    assert len(pages) > len(whole)
    assert without_positions(pages) == without_positions(whole)
    assert all(len(page.runs) + len(page.replies) <= limit for page in pages)


def test_a_number_is_not_given_again_after_a_move_even_that_of_a_removed_run(
    store: Store, lease: Lease, empty: Store
) -> None:
    start(store, lease, "kept")
    last = start(store, lease, "removed")
    store.commit(lease, Batch(ends=[end(last)]))
    store.remove_ended(before_ms=ALL, limit=9)
    for page in read(store):
        empty.import_page(ARRIVING, page)

    empty.mark_move(ARRIVING, ARRIVING._replace(stage="arrived"), now_ms=0)

    assert submit(empty, "new") > last


def test_messages_that_come_after_a_move_come_after_those_that_were_moved(
    store: Store, lease: Lease, empty: Store
) -> None:
    run = start(store, lease)
    store.submit(Batch(messages=[signal(run, b"1"), signal(run, b"2")]))
    store.commit(lease, Batch(freed=[run]))
    for page in read(store):
        empty.import_page(ARRIVING, page)
    empty.mark_move(ARRIVING, ARRIVING._replace(stage="arrived"), now_ms=0)
    later = empty.acquire("later", now_ms=0, ttl_ms=10_000)

    empty.submit(Batch(messages=[signal(run, b"3")]))
    claimed = claim(empty, later, now_ms=1)

    assert claimed == [run]
    assert [message.payload for message in empty.messages_for(run)] == [b"1", b"2", b"3"]
    page = empty.messages(later, after=0, limit=9)
    assert [message.payload for message in page.messages] == [b"1", b"2", b"3"]


def test_a_request_that_was_had_before_a_move_is_known_after_it(
    store: Store, lease: Lease, empty: Store
) -> None:
    run = start(store, lease)
    (position,) = store.submit(Batch(messages=[signal(run, request="q")])).messages
    store.commit(lease, Batch(taken=[position]))
    for page in read(store):
        empty.import_page(ARRIVING, page)
    empty.mark_move(ARRIVING, ARRIVING._replace(stage="arrived"), now_ms=0)

    (again,) = empty.submit(Batch(messages=[signal(run, request="q")])).messages

    assert again == -1


def test_who_knows_only_an_earlier_turn_of_a_move_writes_nothing(
    store: Store, lease: Lease, empty: Store
) -> None:
    fill(store, lease)
    (first, *_) = read(store)
    empty.mark_move(ARRIVING, ARRIVING._replace(turn=2), now_ms=0)

    with pytest.raises(StoreMoved, match="turn 2"):
        empty.import_page(ARRIVING, first)

    assert read(empty) == []


def test_a_page_is_written_whole_or_not(store: Store, lease: Lease, empty: Store) -> None:
    fill(store, lease)
    (first, *_) = read(store)
    torn = first._replace(runs=[*first.runs, first.runs[0]])

    with pytest.raises(StoreError):
        empty.import_page(ARRIVING, torn)

    assert read(empty) == []
    assert list(empty.check()) == []


def test_what_has_arrived_is_removed_when_the_move_is_given_up(
    store: Store, lease: Lease, empty: Store
) -> None:
    fill(store, lease)
    for page in read(store):
        empty.import_page(ARRIVING, page)

    empty.mark_move(ARRIVING, None, now_ms=0)

    assert read(empty) == []
    assert empty.list_runs(RunQuery(all_generations=True)) == []
    assert list(empty.check()) == []
    assert submit(empty) > 0


def test_a_run_can_be_large_and_a_page_is_not(
    store: Store, lease: Lease, open_store: Callable[[], Store]
) -> None:
    run = start(store, lease)
    start(store, lease, "small")
    store.commit(lease, Batch(records=[record(run, seq, LARGE) for seq in range(5)]))

    pages = read(open_store(), bytes_max=1_000_000)

    assert [[len(each.records) for each in page.runs] for page in pages] == [[5], [0]]
