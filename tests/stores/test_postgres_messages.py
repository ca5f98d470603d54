"""Positions of messages on PostgreSQL: one that is committed late, at a lower position, is not missed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure.core.records import Status
from perdure.stores.base import Batch, Lease
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from perdure.stores.postgres.messages import send_messages
from tests.stores.build import claim, end, signal, start


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[PostgresStore]]:
    """The store as three processes have it."""
    opened = [PostgresStore(postgres_url) for _ in range(3)]
    yield opened
    for store in opened:
        store.close()


@pytest.fixture
def lease(stores: list[PostgresStore]) -> Lease:
    return stores[0].acquire("w", now_ms=0, ttl_ms=60_000)


def send(store: PostgresStore, run: int, *payloads: bytes) -> list[int]:
    return list(store.submit(Batch(messages=[signal(run, payload) for payload in payloads])).messages)


def test_a_message_that_is_committed_late_at_a_lower_position_is_still_given(
    stores: list[PostgresStore], lease: Lease
) -> None:
    worker, slow, quick = stores
    run = start(worker, lease)
    before = send(quick, run, b"before")
    pages = []

    def work(link: Link) -> list[int]:
        with link.transaction():
            pass
        positions, _ = send_messages(link, [signal(run, b"late")], lease=0)
        send(quick, run, b"quick")
        pages.append(worker.messages(lease, after=0, limit=10))
        pages.append(worker.messages(lease, after=pages[0].after, limit=10))
        return positions

    late = slow._database.write(work)
    pages.append(worker.messages(lease, after=pages[1].after, limit=10))
    pages.append(worker.messages(lease, after=pages[2].after, limit=10))

    found = [[message.payload for message in page.messages] for page in pages]
    assert found == [[b"before", b"quick"], [b"quick"], [b"late", b"quick"], []]
    assert before[0] <= pages[1].after < late[0]


def test_what_is_given_again_and_again_does_not_hide_what_is_new(
    stores: list[PostgresStore], lease: Lease
) -> None:
    worker, slow, quick = stores
    run = start(worker, lease)
    found: list[bytes | None] = []

    def work(link: Link) -> None:
        with link.transaction():
            pass
        send(quick, run, b"1", b"2", b"3", b"4")
        page = worker.messages(lease, after=0, limit=2)
        found.extend(message.payload for message in page.messages)

    slow._database.write(work)

    assert found == [b"1", b"2", b"3", b"4"]


def test_a_page_moves_on_only_past_messages(stores: list[PostgresStore], lease: Lease) -> None:
    worker, _, quick = stores
    run = start(worker, lease)
    send(quick, start(worker, lease, "other"), b"1")
    (position,) = send(quick, run, b"2")
    page = worker.messages(lease, after=0, limit=10)

    for seq in range(3):
        worker.commit(lease, Batch(wakes=[(seq, 0, run)]))
    again = worker.messages(lease, after=page.after, limit=10)

    assert again == ([], page.after)
    assert page.after >= position


def test_one_that_asks_as_another_worker_begins_where_it_says(
    stores: list[PostgresStore], lease: Lease
) -> None:
    worker, _, quick = stores
    run = start(worker, lease)
    send(quick, run, b"1")
    other = quick.acquire("other", now_ms=0, ttl_ms=60_000)
    worker.messages(other, after=0, limit=10)

    assert [message.payload for message in worker.messages(lease, after=0, limit=10).messages] == [b"1"]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.CONTINUED])
def test_a_message_that_is_committed_right_after_the_end_of_its_run_is_given_to_who_has_the_run(
    stores: list[PostgresStore], lease: Lease, status: Status
) -> None:
    worker, slow, heir = stores
    run = start(worker, lease)

    position = send_while_it_ends(worker, lease, slow, run, status)
    page = worker.messages(lease, after=0, limit=10)
    worker.release(lease)
    second = heir.acquire("heir", now_ms=0, ttl_ms=60_000)  # which forgets the other lease
    claimed = claim(heir, second, now_ms=0)

    assert [message.pos for message in page.messages] == [position]
    assert claimed == [run]
    assert [message.pos for message in heir.messages_for(run)] == [position]


def send_while_it_ends(
    worker: PostgresStore, lease: Lease, slow: PostgresStore, run: int, status: Status
) -> int:
    """Send a message that found the run open, and is committed when that has ended."""

    def work(link: Link) -> int:
        with link.transaction():
            pass
        ((position,), _) = send_messages(link, [signal(run, b"late")], lease=0)
        worker.commit(lease, Batch(ends=[end(run, status)]))
        return position

    return slow._database.write(work)
