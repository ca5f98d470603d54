"""Runs that wait for events on PostgreSQL: each event once, in order, whatever happens at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from perdure.core.events import Append, NewEvent
from perdure.core.records import Kind, Record, Status
from perdure.errors import LeaseLost
from perdure.stores.base import Batch, Lease, RunEnd, Transaction
from perdure.stores.correlation import Given, event_from_text, wanted
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres import awaiting as awaiting_module
from tests.stores.build import new_run, start
from tests.stores.test_postgres_listen import Hearing


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres_url, believes_caller=True)
    yield opened
    opened.close()


@pytest.fixture
def lease(store: PostgresStore) -> Lease:
    return store.acquire("first", now_ms=0, ttl_ms=1_000_000)


@pytest.fixture
def other(postgres_url: str) -> Iterator[PostgresStore]:
    """The store as another process has it."""
    opened = PostgresStore(postgres_url, believes_caller=True)
    yield opened
    opened.close()


@pytest.fixture
def second(other: PostgresStore) -> Lease:
    return other.acquire("second", now_ms=0, ttl_ms=1_000_000)


@pytest.fixture
def connection(store: PostgresStore, postgres_server: str) -> Iterator[psycopg.Connection]:
    """The user's own."""
    with psycopg.connect(postgres_server) as opened:
        yield opened
        opened.rollback()


def paid(order: str, name: str = "") -> NewEvent:
    return NewEvent(name or order, "", "paid", 1, order, 5, 6, "", f'{{"order":"{order}"}}'.encode(), False)


def append(store: PostgresStore, *events: NewEvent) -> None:
    store.submit(Batch(appends=[Append("orders", events)]))


def within(store: PostgresStore, connection: Any, *events: NewEvent) -> None:
    store.streams.append_within(connection, Append("orders", events))


def nothing() -> None:
    pass


def ask(
    store: PostgresStore,
    lease: Lease,
    run: int,
    order: str = "17",
    *,
    meanwhile: Callable[[], object] = nothing,
) -> None:
    """Have a run wait for the event of an order, in a commit of its step; `meanwhile` comes before COMMIT."""
    row = store.run_by_number(run)
    assert row is not None

    def work(connection: Any) -> bytes:
        found = store.streams.ask_within(connection, wanted("orders", "paid", {"order": order}), row.id)
        assert found == (None, False)
        meanwhile()
        return b"null"

    seq = len(store.records(run))
    record = Record(seq, Kind.STEP, f"0/{seq}/next_event", 0, 5, None, run)
    asking = Transaction(0, record.key, 0, work, lambda error: None)
    store.commit(lease, Batch(records=[record], transactions=[asking]))
    assert asking.failed is None


def give(store: PostgresStore, lease: Lease) -> list[Given]:
    """Compare until nothing is found, or only what is held back."""
    given: list[Given] = []
    while (news := store.streams.look_for_awaited()) is not None:
        given.append(store.streams.give_awaited(lease, news))
        if not given[-1].is_more:
            break
    return given


def told(store: PostgresStore, run: int) -> list[str]:
    """The events that were sent to a run, by name."""
    return [event_from_text(message.payload or b"").id for message in store.messages_for(run)]


def count(store: PostgresStore, table: str) -> int:
    schema = store._database.place.schema
    ((number,),) = store._database.read(lambda link: link.query(f'SELECT count(*) FROM "{schema}".{table}'))
    return number


def test_an_event_of_a_transaction_that_is_open_while_a_run_asks_is_given_to_it_once(
    store: PostgresStore, lease: Lease, connection: psycopg.Connection
) -> None:
    run = start(store, lease)
    within(store, connection, paid("17"))
    ask(store, lease, run)
    before = give(store, lease)
    connection.commit()

    give(store, lease)
    give(store, lease)

    assert [given.messages for given in before] == [[]]
    assert told(store, run) == ["17"]


def test_an_event_that_is_committed_while_the_wait_is_not_is_given_to_it_once(
    store: PostgresStore, lease: Lease, other: PostgresStore, second: Lease
) -> None:
    run = start(store, lease)
    ask(store, lease, start(store, lease, "before"), "another")

    def compare_without_it() -> None:
        append(other, paid("17"))
        give(other, second)

    ask(store, lease, run, meanwhile=compare_without_it)
    give(other, second)
    give(other, second)

    assert told(store, run) == ["17"]


@pytest.mark.parametrize("first", ["append", "ask"])
def test_of_an_event_and_a_wait_that_are_both_open_each_may_be_committed_first(
    store: PostgresStore,
    lease: Lease,
    other: PostgresStore,
    second: Lease,
    connection: psycopg.Connection,
    first: str,
) -> None:
    run = start(store, lease)
    within(store, connection, paid("17"))

    def commit_the_event() -> None:
        give(other, second)
        if first == "append":
            connection.commit()
            give(other, second)

    ask(store, lease, run, meanwhile=commit_the_event)
    give(other, second)
    connection.commit()
    give(other, second)
    give(store, lease)

    assert told(store, run) == ["17"]


def test_an_append_and_a_wait_need_not_wait_for_each_other_or_for_who_compares(
    store: PostgresStore, lease: Lease, other: PostgresStore, second: Lease, connection: psycopg.Connection
) -> None:
    """Whoever stands still in a transaction: a second would be over before a lock is."""
    run, late = start(store, lease), start(store, lease, "late")
    ask(store, lease, run)
    append(store, paid("17", "a"))
    schema = store._database.place.schema
    connection.execute(f"SELECT 1 FROM {schema}.correlation FOR UPDATE".encode())  # who compares stands still
    connection.execute(f"SELECT 1 FROM {schema}.awaiting FOR UPDATE".encode())

    with psycopg.connect(connection.info.dsn) as user:
        user.execute("SET lock_timeout = '1s'")
        within(store, user, paid("17", "b"))  # and a user, who has appended
        ask(other, second, late)
        append(other, paid("17", "c"))
        held_up = give(other, second)
    connection.rollback()
    give(other, second)

    assert [given.is_held_back for given in held_up] == [True]
    assert (told(store, run), told(store, late)) == (["a"], ["a"])


def test_an_event_that_is_committed_late_at_a_lower_position_is_given_in_its_place(
    store: PostgresStore, lease: Lease, connection: psycopg.Connection
) -> None:
    run = start(store, lease)
    ask(store, lease, run)
    ask(store, lease, run)
    within(store, connection, paid("17", "late"))
    append(store, paid("17", "quick"))
    (held_back,) = give(store, lease)
    connection.commit()

    give(store, lease)

    assert (held_back.messages, held_back.is_held_back) == ([], True)
    assert told(store, run) == ["late", "quick"]


def test_of_two_workers_that_compare_the_same_one_gives(
    store: PostgresStore, lease: Lease, other: PostgresStore, second: Lease
) -> None:
    run = start(store, lease)
    ask(store, lease, run)
    ask(store, lease, run)
    append(store, paid("17"))
    seen, seen_too = store.streams.look_for_awaited(), other.streams.look_for_awaited()

    given = store.streams.give_awaited(lease, seen)
    late = other.streams.give_awaited(second, seen_too)
    append(store, paid("17", "next"))
    give(other, second)

    assert (len(given.messages), late.messages) == (1, [])
    assert told(store, run) == ["17", "next"]


def test_a_worker_that_has_lost_its_lease_gives_nothing_and_another_gives_all(
    store: PostgresStore, lease: Lease, other: PostgresStore, second: Lease
) -> None:
    run = start(store, lease)
    ask(store, lease, run)
    append(store, paid("17"))
    seen = store.streams.look_for_awaited()
    store.release(lease)

    with pytest.raises(LeaseLost):
        store.streams.give_awaited(lease, seen)
    before = told(store, run)
    give(other, second)

    assert (before, told(store, run)) == ([], ["17"])


def test_where_much_is_to_be_compared_it_is_done_a_part_at_a_time(
    store: PostgresStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaiting_module, "ENTERED_AT_ONCE", 3)
    monkeypatch.setattr(awaiting_module, "_GIVEN_AT_ONCE", 2)
    for number in range(8):
        append(store, paid(str(number % 4), str(number)))
    runs = [start(store, lease, f"run-{number}") for number in range(4)]
    for number, run in enumerate(runs):
        for _ in range(3):
            ask(store, lease, run, str(number))

    give(store, lease)

    assert [told(store, run) for run in runs] == [["0", "4"], ["1", "5"], ["2", "6"], ["3", "7"]]


def test_a_worker_that_glances_sees_what_one_that_died_has_left(
    store: PostgresStore, lease: Lease, other: PostgresStore, second: Lease
) -> None:
    def is_seen() -> bool:
        sight = other.glance(second, workflows=[], after=0, now_ms=5, until_ms=0)
        return sight.awaited

    unasked = is_seen()
    run = start(store, lease)
    ask(store, lease, run)
    asked = is_seen()
    give(other, second)
    compared = is_seen()
    append(store, paid("18"))
    appended = is_seen()
    give(other, second)

    assert (unasked, asked, compared, appended, is_seen()) == (False, True, False, True, False)


def test_a_run_that_has_ended_is_given_nothing_and_what_is_known_of_it_goes_with_it(
    store: PostgresStore, lease: Lease
) -> None:
    run = start(store, lease)
    ask(store, lease, run)
    give(store, lease)
    store.commit(lease, Batch(ends=[RunEnd(Status.COMPLETED, b"null", 9, None, run)]))

    append(store, paid("17"))
    given = give(store, lease)
    kept = count(store, "awaiting")
    store.remove_ended(before_ms=1_000, limit=10)

    assert [one.messages for one in given] == [[]]
    assert (kept, count(store, "awaiting"), list(store.check())) == (1, 0, [])


def test_runs_that_have_ended_hold_up_none_that_waits_for_the_same(
    store: PostgresStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would fill each part that is given, and none of it could be sent."""
    monkeypatch.setattr(awaiting_module, "_GIVEN_AT_ONCE", 2)
    ended = [start(store, lease, f"ended-{number}") for number in range(2)]
    run = start(store, lease)
    for waiting in (*ended, run):
        ask(store, lease, waiting)
    give(store, lease)
    store.commit(lease, Batch(ends=[RunEnd(Status.COMPLETED, b"null", 9, None, one) for one in ended]))
    send, parts = awaiting_module._send, list[int]()

    def send_a_part(link: Any, rows: Any, *, lease: int) -> Any:
        parts.append(len(rows))
        assert len(parts) < 5, "it never ends"
        return send(link, rows, lease=lease)

    monkeypatch.setattr(awaiting_module, "_send", send_a_part)
    append(store, paid("17"))
    give(store, lease)

    assert (parts, told(store, run)) == ([1], ["17"])


def test_an_event_for_a_run_that_ends_at_that_moment_is_left_to_the_next_generation(
    store: PostgresStore, lease: Lease, other: PostgresStore, second: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is open when it is found that it waits, and has continued when the event is sent."""
    run = start(store, lease)
    ask(store, lease, run)
    append(store, paid("17"))
    send = awaiting_module.send_messages
    later: list[int] = []

    def continue_first(*given: Any, **more: Any) -> Any:
        if not later:
            ended = RunEnd(Status.CONTINUED, b"null", 9, None, run)
            (started,) = store.commit(lease, Batch(ends=[ended], starts=[new_run()])).starts
            later.append(started.run.number)
        return send(*given, **more)

    monkeypatch.setattr(awaiting_module, "send_messages", continue_first)
    given = give(other, second)
    ask(store, lease, later[0])
    give(other, second)

    assert [one.messages for one in given][:1] == [[]]
    assert (told(store, run), told(store, later[0])) == ([], ["17"])


def test_a_run_is_given_as_many_as_it_has_asked_for(store: PostgresStore, lease: Lease) -> None:
    run = start(store, lease)
    ask(store, lease, run)
    ask(store, lease, run)
    given: list[list[str]] = []
    for name in "abc":
        append(store, paid("17", name))
        give(store, lease)
        given.append(told(store, run))

    assert given == [["a"], ["a", "b"], ["a", "b"]]


def test_what_was_entered_of_an_event_goes_with_it(
    store: PostgresStore, lease: Lease, connection: psycopg.Connection
) -> None:
    run = start(store, lease)
    ask(store, lease, run, "18")
    append(store, paid("17"), paid("17", "again"), paid("18"))
    give(store, lease)
    entered = count(store, "correlated")

    connection.execute(f"DELETE FROM {store._database.place.schema}.event WHERE key = '17'".encode())
    connection.commit()

    assert (entered, count(store, "correlated")) == (3, 1)


def test_what_everybody_does_at_once_comes_to_each_event_once_and_in_order(
    store: PostgresStore, lease: Lease, other: PostgresStore, second: Lease, postgres_url: str
) -> None:
    """Two who append, one with transactions of its own that overlap, one run that asks, two who compare."""
    orders, each = ("1", "2"), 20
    runs = {order: start(store, lease, order) for order in orders}
    done = threading.Event()

    def append_within_own() -> None:
        dsn = postgres_url.partition("?schema")[0].partition("&schema")[0]
        with psycopg.connect(dsn) as mine:
            for number in range(each):
                within(other, mine, paid(orders[number % 2], f"u{number:03}"))
                append(other, paid(orders[number % 2], f"s{number:03}"))
                mine.commit()

    def compare() -> None:
        while not done.is_set():
            give(other, second)

    threads = [threading.Thread(target=append_within_own), threading.Thread(target=compare)]
    for thread in threads:
        thread.start()
    for _ in range(each):
        for order, run in runs.items():
            ask(store, lease, run, order)
        give(store, lease)
    threads[0].join(30)
    done.set()
    threads[1].join(30)
    give(store, lease)

    page = store.streams.events("orders", after=0, limit=1_000).events
    for order, run in runs.items():
        assert told(store, run) == [event.id for event in page if event.key == order]


def test_an_append_does_nothing_for_those_who_wait(store: PostgresStore, lease: Lease) -> None:
    ask(store, lease, start(store, lease))
    give(store, lease)

    append(store, paid("17"))

    assert (count(store, "correlated"), count(store, "message")) == (0, 0)


def test_a_run_that_asks_tells_no_other_process(
    store: PostgresStore, lease: Lease, other: PostgresStore
) -> None:
    """Its own worker compares; should that die, a glance of another sees what it has left."""
    run = start(store, lease)
    hearing = Hearing(other)

    ask(store, lease, run)
    silent = not hearing.is_told(0.2)
    append(store, paid("17"))

    assert silent
    assert hearing.is_told()


def test_what_was_given_is_told_as_it_was_sent(store: PostgresStore, lease: Lease) -> None:
    run = start(store, lease)
    ask(store, lease, run)
    append(store, paid("17"))

    given = [message for one in give(store, lease) for message in one.messages]

    assert given == store.messages_for(run)
    assert given[0].pos > 0
