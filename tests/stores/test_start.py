"""Starting runs: who gets an id."""

from __future__ import annotations

import pytest

from perdure.core.records import Message, MessageKind, Status
from perdure.stores.base import Batch, Lease, StartOutcome, Store
from tests.stores.build import LARGE, end, new_run, row_of, start


def outcome_of(store: Store, lease: Lease, **changes: object) -> StartOutcome:
    (outcome,) = store.commit(lease, Batch(starts=[new_run(**changes)])).starts
    return outcome


def test_a_new_id_starts_a_run_as_it_was_given(store: Store, lease: Lease) -> None:
    asked = new_run(deadline_ms=9_000, parent=3, parent_key="0/child", on_parent_close="abandon")

    (outcome,) = store.commit(lease, Batch(starts=[asked])).starts

    row = outcome.run
    assert outcome.verdict == "started"
    assert row == store.run_by_id("order-17") == store.run_by_number(row.number)
    assert (row.id, row.generation, row.workflow, row.status) == ("order-17", 1, "checkout", Status.RUNNING)
    assert (row.input, row.output, row.seed, row.python) == (asked.input, None, asked.seed, "3.11")
    assert (row.wake_at_ms, row.crashes, row.deadline_ms) == (0, 0, 9_000)
    assert row.lease == lease.number
    assert (row.parent, row.parent_key, row.on_parent_close) == (3, "0/child", "abandon")
    assert (row.created_at_ms, row.ended_at_ms) == (1_000, None)


def test_outcomes_come_in_the_order_of_the_starts(store: Store, lease: Lease) -> None:
    start(store, lease, "b")
    batch = Batch(starts=[new_run("a"), new_run("b"), new_run("c"), new_run("c"), new_run("d", input=LARGE)])

    outcomes = store.commit(lease, batch).starts

    verdicts = [(outcome.run.id, outcome.verdict) for outcome in outcomes]
    assert verdicts == [
        ("a", "started"), ("b", "existing"), ("c", "started"), ("c", "existing"), ("d", "started"),
    ]  # fmt: skip
    assert [store.run_by_id(outcome.run.id) for outcome in outcomes] == [outcome.run for outcome in outcomes]


def test_known_ids_among_many_new_ones_keep_their_runs(store: Store, lease: Lease) -> None:
    old = start(store, lease, "b")

    outcomes = store.commit(lease, Batch(starts=[new_run(name) for name in "abcbd"])).starts

    assert [outcome.verdict for outcome in outcomes] == [
        "started",
        "existing",
        "started",
        "existing",
        "started",
    ]
    assert [outcome.run.number for outcome in outcomes if outcome.run.id == "b"] == [old, old]
    assert len({outcome.run.number for outcome in outcomes}) == 4


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PARKED, Status.COMPLETED, Status.FAILED])
def test_the_same_start_again_returns_the_run(store: Store, lease: Lease, status: Status) -> None:
    number = start(store, lease)
    store.commit(lease, Batch(ends=[end(number, status)]))

    outcome = outcome_of(store, lease)

    assert (outcome.verdict, outcome.run) == ("existing", store.run_by_number(number))


@pytest.mark.parametrize("status", [Status.RUNNING, Status.COMPLETED])
@pytest.mark.parametrize(
    ("changes", "reason"), [({"input": b"2"}, "input"), ({"workflow": "refund"}, "workflow")]
)
def test_another_start_under_the_same_id_is_a_conflict(
    store: Store, lease: Lease, status: Status, changes: dict[str, object], reason: str
) -> None:
    number = start(store, lease)
    store.commit(lease, Batch(ends=[end(number, status)]))

    outcome = outcome_of(store, lease, **changes)

    assert (outcome.verdict, outcome.reason, outcome.run.number) == ("conflict", reason, number)


def test_a_large_input_is_compared_whole(store: Store, lease: Lease) -> None:
    start(store, lease, input=LARGE)

    same = outcome_of(store, lease, input=LARGE)
    other = outcome_of(store, lease, input=LARGE[:-1] + b"y")

    assert (same.verdict, same.run.input) == ("existing", LARGE)
    assert (other.verdict, other.reason) == ("conflict", "input")


def test_raise_refuses_an_id_that_still_runs(store: Store, lease: Lease) -> None:
    start(store, lease)

    outcome = outcome_of(store, lease, on_conflict="raise")

    assert (outcome.verdict, outcome.reason) == ("conflict", "running")


def test_cancel_asks_the_running_one_to_stop_once(store: Store, lease: Lease) -> None:
    number = start(store, lease)

    outcomes = [outcome_of(store, lease, on_conflict="cancel", seed=b"s" * 16) for _ in range(2)]

    assert [(outcome.verdict, outcome.reason) for outcome in outcomes] == [("conflict", "cancelling")] * 2
    assert [(sent.run, sent.kind) for sent in store.messages_for(number)] == [(number, MessageKind.CANCEL)]


@pytest.mark.parametrize(
    ("reuse", "status", "starts_anew"),
    [
        ("never", Status.FAILED, False),
        ("if_failed", Status.COMPLETED, False),
        ("if_failed", Status.FAILED, True),
        ("if_failed", Status.CANCELLED, True),
        ("if_failed", Status.TERMINATED, True),
        ("if_failed", Status.TIMED_OUT, True),
        ("always", Status.COMPLETED, True),
        ("always", Status.FAILED, True),
        ("always", Status.PARKED, False),
    ],
)
def test_reuse_says_when_a_finished_id_starts_anew(
    store: Store, lease: Lease, reuse: str, status: Status, starts_anew: bool
) -> None:
    old = start(store, lease)
    store.commit(lease, Batch(ends=[end(old, status)]))

    outcome = outcome_of(store, lease, reuse=reuse)

    assert (outcome.verdict, outcome.run.generation) == (("started", 2) if starts_anew else ("existing", 1))
    assert (outcome.run.number != old) is starts_anew
    assert store.run_by_id("order-17") == outcome.run
    first = store.run_by_id("order-17", generation=1)
    assert first is not None
    assert first.number == old


def test_a_run_that_continues_starts_its_next_generation_in_the_same_batch(
    store: Store, lease: Lease
) -> None:
    old = start(store, lease)
    batch = Batch(starts=[new_run(input=b"2")], ends=[end(old, Status.CONTINUED)])

    (outcome,) = store.commit(lease, batch).starts

    assert (outcome.verdict, outcome.run.generation, outcome.run.input) == ("started", 2, b"2")
    assert store.counts() == {Status.RUNNING: 1}


def test_a_continued_run_is_known_by_what_it_was_started_with(store: Store, lease: Lease) -> None:
    number = start(store, lease, input=b"1")
    for given in (b"2", b"3"):
        batch = Batch(starts=[new_run(input=given)], ends=[end(number, Status.CONTINUED)])
        number = store.commit(lease, batch).starts[0].run.number

    again = outcome_of(store, lease, input=b"1")
    other = outcome_of(store, lease, input=b"3")

    assert (again.verdict, again.run.number) == ("existing", number)
    assert (other.verdict, other.reason) == ("conflict", "input")


def test_a_worker_s_starts_are_its_own_and_submitted_ones_are_free(store: Store, lease: Lease) -> None:
    old = start(store, lease, "old")

    committed = store.submit(Batch(starts=[new_run("new"), new_run("old")]))

    outcomes = [(outcome.verdict, outcome.run.lease) for outcome in committed.starts]
    assert outcomes == [("started", 0), ("existing", lease.number)]
    new = committed.starts[0].run
    assert (row_of(store, new.number), row_of(store, old)) == tuple(
        outcome.run for outcome in committed.starts
    )
    assert store.messages_for(new.number) == []


@pytest.mark.parametrize("large", [False, True])
def test_the_next_generation_belongs_to_who_starts_it(store: Store, lease: Lease, large: bool) -> None:
    first = start(store, lease)
    given = LARGE if large else b"2"
    store.commit(lease, Batch(ends=[end(first, Status.FAILED)]))

    (free,) = store.submit(Batch(starts=[new_run(reuse="always", input=given)])).starts
    store.commit(lease, Batch(ends=[end(free.run.number, Status.FAILED)]))
    (own,) = store.commit(lease, Batch(starts=[new_run(reuse="always", input=given)])).starts

    assert [(each.run.generation, each.run.lease) for each in (free, own)] == [(2, 0), (3, lease.number)]
    assert row_of(store, own.run.number) == own.run


def test_what_is_handed_on_to_a_run_is_sent_to_it_in_the_commit_that_starts_it(
    store: Store, lease: Lease
) -> None:
    messages = (
        Message(0, 0, MessageKind.SIGNAL, "approval", b'"ann"', "", 1),
        Message(0, 0, MessageKind.UPDATE, "move", b'"home"', "request", 1),
    )

    committed = store.commit(lease, Batch(starts=[new_run(messages=messages)]))

    number = committed.starts[0].run.number
    sent = store.messages(lease, after=0, limit=10)
    assert [message._replace(pos=0) for message in sent.messages] == [
        m._replace(run=number) for m in messages
    ]
