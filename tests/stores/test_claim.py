"""Claims: how runs that no living worker has in hand come to one, and to one only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from perdure.core.records import Message, MessageKind, Status
from perdure.errors import LeaseLost
from perdure.stores.base import Batch, Lease, Store
from tests.stores.build import claim, end, open_again, park, row_of, signal, start, submit

LATER_MS = 5_000
"""So much later all that waits is looked through, whatever was looked at before."""


def send(store: Store, run: int, kind: MessageKind) -> None:
    (position,) = store.submit(Batch(messages=[Message(0, run, kind, "name", None, "", 1)])).messages
    assert position > 0


# -- which runs are free, and are claimed ----------------------------------------------------------


def test_what_a_process_without_a_lease_has_started_is_free_and_is_claimed_once(
    store: Store, lease: Lease
) -> None:
    run = submit(store)
    before = row_of(store, run).lease

    claimed, again = claim(store, lease, now_ms=1), claim(store, lease, now_ms=1)

    assert before == 0
    assert (claimed, again) == ([run], [])
    assert row_of(store, run).lease == lease.number


def test_a_run_belongs_to_the_worker_that_started_it_and_nobody_claims_it(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    send(store, run, MessageKind.CANCEL)

    found = claim(other, second, now_ms=1), claim(store, lease, now_ms=1)
    these = other.claim_these(second, [run], now_ms=1), store.claim_these(lease, [run], now_ms=1)

    assert found == ([], [])
    assert these == (set(), set())
    assert row_of(store, run).lease == lease.number


def test_only_runs_of_the_workflows_that_are_named_are_claimed(store: Store, lease: Lease) -> None:
    submit(store, "due")
    submit(store, "due as well", workflow="refund")
    for run_id, workflow in (("sent", "checkout"), ("sent as well", "refund")):
        run = start(store, lease, run_id, workflow=workflow)
        store.commit(lease, Batch(wakes=[(None, 0, run)], freed=[run], messages=[signal(run)]))

    refunds = claim(store, lease, now_ms=1, workflows=["unheard of", "refund"])
    none = claim(store, lease, now_ms=1, workflows=[])
    rest = claim(store, lease, now_ms=1)

    assert {row_of(store, run).id for run in refunds} == {"due as well", "sent as well"}
    assert none == []
    assert {row_of(store, run).id for run in rest} == {"due", "sent"}


def test_a_free_run_that_sleeps_is_claimed_when_it_is_due(store: Store, lease: Lease) -> None:
    run, ever = start(store, lease, "sleeps"), start(store, lease, "waits for ever")
    store.commit(lease, Batch(wakes=[(700, 0, run), (None, 0, ever)], freed=[run, ever]))

    before, then = claim(store, lease, now_ms=699), claim(store, lease, now_ms=700)

    assert (before, then) == ([], [run])
    assert claim(store, lease, now_ms=9_999) == []


@pytest.mark.parametrize("kind", [kind for kind in MessageKind if kind is not MessageKind.STEP_ENDED][1:])
def test_a_free_run_that_something_is_sent_to_is_claimed(
    store: Store, lease: Lease, kind: MessageKind
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(wakes=[(9_000, 0, run)], freed=[run]))
    before = claim(store, lease, now_ms=1)

    send(store, run, kind)

    assert before == []
    assert claim(store, lease, now_ms=2) == [run]


def test_what_was_sent_before_its_run_was_freed_is_found_too(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(wakes=[(None, 0, run)], messages=[signal(run)]))
    before = claim(other, second, now_ms=1)

    store.commit(lease, Batch(freed=[run]))

    assert before == []
    assert claim(other, second, now_ms=LATER_MS) == [run]


def test_it_is_found_although_the_clock_was_set_back_meanwhile(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(wakes=[(None, 0, run)], messages=[signal(run)], leases=1_000_000))
    claim(other, second, now_ms=900_000)

    store.commit(lease, Batch(freed=[run]))

    assert claim(other, second, now_ms=LATER_MS) == [run]


def test_runs_that_have_ended_are_not_claimed(store: Store, lease: Lease) -> None:
    mine, free = start(store, lease, "mine"), submit(store, "free")
    store.commit(lease, Batch(ends=[end(mine), end(free)], freed=[mine, free]))

    claimed = claim(store, lease, now_ms=LATER_MS)
    these = store.claim_these(lease, [mine, free, free + 1], now_ms=LATER_MS)

    assert claimed == []
    assert these == set()


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.TERMINATED, Status.CONTINUED])
@pytest.mark.parametrize("is_forgotten", [False, True], ids=["lease", "no lease"])
def test_a_run_that_has_ended_is_claimed_once_for_what_it_was_sent_and_did_not_take(
    store: Store, lease: Lease, other: Store, second: Lease, status: Status, is_forgotten: bool
) -> None:
    run, empty = start(store, lease), start(store, lease, "empty")
    store.commit(lease, Batch(messages=[signal(run)]))
    store.commit(lease, Batch(ends=[end(run, status), end(empty, status)]))
    before = claim(other, second, now_ms=1)

    store.release(lease)
    if is_forgotten:  # who acquires removes leases of which no open run is
        store.acquire("third", now_ms=1, ttl_ms=1_000_000)
    these = other.claim_these(second, [run, empty], now_ms=LATER_MS)
    claimed, again = (claim(other, second, now_ms=LATER_MS + late_ms) for late_ms in (0, 5_000))

    assert (before, these, claimed, again) == ([], set(), [run], [])
    assert (row_of(store, run).status, row_of(store, run).crashes) == (status, 0)
    assert [message.run for message in other.messages(second, after=0, limit=9).messages] == [run]


# -- how many, and in what order -------------------------------------------------------------------


def test_what_is_due_first_is_claimed_first_and_at_most_so_many(store: Store, lease: Lease) -> None:
    a, b, c, d = (start(store, lease, run_id) for run_id in "abcd")
    wakes = [(300, 0, a), (100, 0, b), (200, 0, c), (None, 0, d)]
    store.commit(lease, Batch(wakes=wakes, freed=[a, b, c, d], messages=[signal(d)]))

    pages = [claim(store, lease, now_ms=1_000, limit=2) for _ in range(3)]

    assert pages == [[b, c], [a, d], []]


def test_what_is_due_first_is_claimed_first_whosever_it_was(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    a, b, c, d = (start(store, lease, run_id) for run_id in "abcd")
    wakes = [(300, 0, a), (100, 0, b), (200, 0, c), (400, 0, d)]
    store.commit(lease, Batch(wakes=wakes, freed=[a, d]))
    store.release(lease)

    assert claim(other, second, now_ms=1_000) == [b, c, a, d]


def test_a_run_that_is_due_and_that_something_was_sent_to_is_claimed_once(store: Store, lease: Lease) -> None:
    run, next_one = submit(store, "one"), submit(store, "two")
    store.submit(Batch(messages=[signal(run), signal(run)]))

    assert claim(store, lease, now_ms=1, limit=2) == [run, next_one]


def test_while_others_are_alive_a_worker_takes_its_share_of_what_is_due(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    runs = [submit(store, run_id) for run_id in "abcdefg"]

    shares = [
        claim(store, lease, now_ms=1),
        claim(other, second, now_ms=1),
        claim(store, lease, now_ms=1),
        claim(other, second, now_ms=1),
    ]

    assert shares == [runs[:4], runs[4:6], runs[6:], []]


def test_what_something_was_sent_to_is_not_shared(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    runs = [start(store, lease, run_id) for run_id in "abc"]
    batch = Batch(freed=runs, wakes=[(None, 0, run) for run in runs], messages=[signal(run) for run in runs])
    store.commit(lease, batch)

    assert claim(other, second, now_ms=1) == runs


def test_workers_that_are_dead_or_whose_time_is_over_have_no_share(
    open_store: Callable[[], Store], store: Store, lease: Lease
) -> None:
    over, dead = open_store(), open_store()
    over.acquire("over", now_ms=0, ttl_ms=500)
    dead.acquire("dead", now_ms=0, ttl_ms=10_000)
    dead.close()
    runs = [submit(store, run_id) for run_id in "abcdef"]

    assert claim(store, lease, now_ms=500) == runs


# -- two workers never have the same run -----------------------------------------------------------


def test_two_workers_that_claim_in_turns_never_get_the_same_run(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    runs = [submit(store, f"r{number}") for number in range(20)]
    taken: dict[int, list[int]] = {lease.number: [], second.number: []}

    for now_ms in range(40):
        worker, held = ((store, lease), (other, second))[now_ms % 2]
        taken[held.number] += claim(worker, held, now_ms=now_ms, limit=3)

    assert sorted(taken[lease.number] + taken[second.number]) == runs
    assert all(row_of(store, run).lease == number for number, theirs in taken.items() for run in theirs)


def test_workers_that_claim_at_once_never_get_the_same_run(
    open_store: Callable[[], Store], store: Store
) -> None:
    stores = [open_store() for _ in range(3)]
    leases = [one.acquire(f"w{number}", now_ms=0, ttl_ms=10_000) for number, one in enumerate(stores)]
    runs = [submit(store, f"r{number}") for number in range(120)]
    store.submit(Batch(messages=[signal(run) for run in runs[::5]]))
    barrier = Barrier(len(stores))

    def work(worker: Store, lease: Lease) -> list[int]:
        barrier.wait()
        taken: list[int] = []
        for turn in range(60):
            taken += claim(worker, lease, now_ms=turn, limit=4)
            taken += worker.claim_these(lease, runs[turn * 2 : turn * 2 + 2], now_ms=turn)
        return taken

    with ThreadPoolExecutor(len(stores)) as threads:
        taken = list(threads.map(work, stores, leases))

    assert sorted(run for theirs in taken for run in theirs) == runs
    for lease, theirs in zip(leases, taken, strict=True):
        assert {row_of(store, run).lease for run in theirs} <= {lease.number}


# -- runs that are freed, parked, and opened again -------------------------------------------------


def test_a_freed_run_is_anybodys(store: Store, lease: Lease, other: Store, second: Lease) -> None:
    run, kept = start(store, lease, "freed"), start(store, lease, "kept")

    store.commit(lease, Batch(freed=[run]))

    assert (row_of(store, run).lease, row_of(store, kept).lease) == (0, lease.number)
    assert claim(other, second, now_ms=1) == [run]


def test_a_run_that_parks_is_free_and_one_that_opens_again_is_its_openers(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)

    store.commit(lease, Batch(ends=[park(run)]))
    parked = row_of(store, run).lease
    other.commit(second, Batch(ends=[open_again(run)]))

    assert parked == 0
    assert row_of(store, run).lease == second.number
    assert claim(store, lease, now_ms=LATER_MS) == []


@pytest.mark.parametrize(
    ("kind", "is_claimed"),
    [
        (MessageKind.UPDATE, True),
        (MessageKind.CANCEL, True),
        (MessageKind.TERMINATE, True),
        (MessageKind.RESUME, True),
        (MessageKind.SIGNAL, False),
        (MessageKind.CHILD_ENDED, False),
        (MessageKind.TIMEOUT, False),
    ],
)
def test_a_parked_run_is_claimed_for_what_it_can_take(
    store: Store, lease: Lease, other: Store, second: Lease, kind: MessageKind, is_claimed: bool
) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(ends=[park(run)]))
    before = claim(other, second, now_ms=1)

    send(store, run, kind)

    assert before == []
    assert claim(other, second, now_ms=LATER_MS) == ([run] if is_claimed else [])
    assert row_of(store, run).crashes == 0


# -- those that are named --------------------------------------------------------------------------


def test_of_runs_that_are_named_those_that_are_free_and_have_not_ended_are_claimed(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    due, asleep, parked = submit(store, "due"), start(store, lease, "asleep"), start(store, lease, "parked")
    ended, theirs, unnamed = submit(store, "ended"), start(store, lease, "theirs"), submit(store, "unnamed")
    batch = Batch(ends=[park(parked), end(ended)], wakes=[(90_000, 0, asleep)], freed=[asleep])
    store.commit(lease, batch)

    named = [parked, due, asleep, ended, theirs, 12_345]
    claimed, again = (other.claim_these(second, named, now_ms=1) for _ in range(2))

    assert (claimed, again) == ({due, asleep, parked}, set())
    assert [row_of(store, run).lease for run in (due, asleep, parked)] == [second.number] * 3
    assert (row_of(store, theirs).lease, row_of(store, unnamed).lease) == (lease.number, 0)


def test_runs_of_a_worker_whose_time_is_over_are_claimed_by_name_and_it_writes_nothing_more(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    run = start(store, lease)

    before, after = (other.claim_these(second, [run], now_ms=now_ms) for now_ms in (9_999, 10_000))

    assert (before, after) == (set(), {run})
    assert row_of(store, run).crashes == 1
    with pytest.raises(LeaseLost):
        store.commit(lease, Batch(wakes=[(77, 0, run)]))


def test_naming_none_claims_none(store: Store, lease: Lease) -> None:
    submit(store)

    assert store.claim_these(lease, [], now_ms=1) == set()


# -- what is free, for those who wonder ------------------------------------------------------------


def test_the_workflows_of_runs_that_wait_for_a_worker_are_named(store: Store, lease: Lease) -> None:
    for run_id, workflow in (("a", "zebra"), ("b", "due"), ("c", "due"), ("d", "ended")):
        submit(store, run_id, workflow=workflow)
    ended = row_of(store, submit(store, "e", workflow="ended")).number - 1
    store.commit(lease, Batch(ends=[end(ended), end(ended + 1)]))
    names = ("mine", "asleep", "sent", "parked", "asked")
    mine, asleep, sent, parked, asked = (start(store, lease, name, workflow=name) for name in names)
    store.commit(lease, Batch(
        ends=[park(parked), park(asked)],
        wakes=[(9_000, 0, asleep), (9_000, 0, sent)],
        freed=[asleep, sent],
        messages=[signal(run) for run in (sent, parked, asked, mine)],
    ))  # fmt: skip
    send(store, asked, MessageKind.RESUME)

    assert store.free_workflows(now_ms=100) == ["asked", "due", "sent", "zebra"]
    assert store.free_workflows(now_ms=9_000) == ["asked", "asleep", "due", "sent", "zebra"]


def test_the_workflows_of_a_worker_are_free_when_its_lease_is_over(
    store: Store, lease: Lease, other: Store
) -> None:
    sent = start(store, lease, "sent", workflow="sent")
    store.commit(lease, Batch(wakes=[(None, 0, sent)], messages=[signal(sent)]))
    start(store, lease, "due")

    during, after = other.free_workflows(now_ms=9_999), other.free_workflows(now_ms=10_000)

    assert (during, after) == ([], ["checkout", "sent"])


# -- reads that belong to a worker -----------------------------------------------------------------


def test_sleeping_runs_are_those_of_the_lease_and_those_that_are_free(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    mine, theirs = start(store, lease, "mine"), start(other, second, "theirs")
    free, parked = start(store, lease, "free"), start(store, lease, "parked")
    wakes = [(300, 0, mine), (100, 0, free), (250, 0, parked)]
    other.commit(second, Batch(wakes=[(200, 0, theirs)]))
    store.commit(lease, Batch(wakes=wakes, freed=[free]))
    store.commit(lease, Batch(ends=[park(parked)]))

    def asleep(worker: Store, held: Lease) -> list[tuple[int, int]]:
        return worker.sleeping_runs(held, after=(0, 0), until_ms=1_000, limit=9)

    both = asleep(store, lease), asleep(other, second)
    store.release(lease)

    assert both == ([(100, free), (300, mine)], [(100, free), (200, theirs)])
    assert asleep(other, second) == [(100, free), (200, theirs), (300, mine)]


def test_a_worker_is_given_the_messages_of_its_runs_and_not_those_of_others_or_of_nobody(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    mine, theirs, nobodys = start(store, lease, "mine"), start(other, second, "theirs"), submit(store, "free")
    runs = (theirs, mine, nobodys)
    sent = store.submit(Batch(messages=[signal(run) for run in runs])).messages

    pages = store.messages(lease, after=0, limit=9), other.messages(second, after=0, limit=9)

    assert [[message.run for message in page.messages] for page in pages] == [[mine], [theirs]]
    assert pages[0].after >= sent[1]
    assert pages[1].after >= sent[0]


def test_a_message_that_was_passed_over_comes_with_its_run_when_it_is_claimed(
    store: Store, lease: Lease
) -> None:
    run = submit(store)
    (position,) = store.submit(Batch(messages=[signal(run)])).messages
    passed = store.messages(lease, after=0, limit=9)

    claim(store, lease, now_ms=1)

    (loaded,) = store.load([run])
    assert passed.messages == []
    assert loaded.messages == [signal(run)._replace(pos=position)]
    assert loaded.row.lease == lease.number


def test_pages_of_messages_go_on_past_those_of_others(
    store: Store, lease: Lease, other: Store, second: Lease
) -> None:
    mine, theirs = start(store, lease, "mine"), start(other, second, "theirs")
    runs = [theirs] * 5 + [mine] + [theirs] * 4 + [mine]
    store.submit(Batch(messages=[signal(run) for run in runs]))

    found: list[int] = []
    after = -1
    page = store.messages(lease, after=0, limit=2)
    while page.after > after:
        found += [message.pos for message in page.messages if message.pos not in found]
        after = page.after
        page = store.messages(lease, after=after, limit=2)

    assert found == [message.pos for message in store.messages_for(mine)]
