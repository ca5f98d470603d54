"""Messages: kept in order until they are taken, each request once, none for the dead."""

from __future__ import annotations

import pytest

from perdure.stores.base import DROPPED, KNOWN, Batch, Lease, Store
from tests.stores.build import LARGE, end, signal, start


@pytest.mark.parametrize("payload", [b"1", None, LARGE])
def test_a_message_is_kept_as_it_was_sent(store: Store, lease: Lease, payload: bytes | None) -> None:
    run = start(store, lease)
    sent = signal(run, payload, request="q")

    (position,) = store.submit(Batch(messages=[sent])).messages

    assert position > 0
    assert (
        store.messages(lease, after=0, limit=9).messages
        == store.messages_for(run)
        == [sent._replace(pos=position)]
    )


def test_messages_come_in_the_order_of_arrival_after_a_position(store: Store, lease: Lease) -> None:
    one, other = start(store, lease, "one"), start(store, lease, "other")
    sent = store.submit(Batch(messages=[signal(one), signal(other), signal(one)])).messages
    late = store.commit(lease, Batch(messages=[signal(one)])).messages

    after = store.messages(lease, after=sent[0], limit=2)

    assert [message.pos for message in after.messages] == list(sent[1:])
    assert [message.pos for message in store.messages_for(one)] == [sent[0], sent[2], *late]
    assert store.messages(lease, after=late[0], limit=2).messages == []


def test_a_taken_message_is_gone(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    first, second = store.submit(Batch(messages=[signal(run, LARGE), signal(run)])).messages

    store.commit(lease, Batch(taken=[first]))

    assert [message.pos for message in store.messages(lease, after=0, limit=9).messages] == [second]
    assert list(store.check()) == []


def test_a_position_is_never_given_again(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    (first,) = store.submit(Batch(messages=[signal(run)])).messages
    store.commit(lease, Batch(taken=[first]))

    (second,) = store.submit(Batch(messages=[signal(run)])).messages

    assert second > first


def test_a_request_is_taken_once_by_a_run_even_after_it_was_recorded(store: Store, lease: Lease) -> None:
    one, other = start(store, lease, "one"), start(store, lease, "other")
    (first,) = store.submit(Batch(messages=[signal(one, request="q")])).messages
    store.commit(lease, Batch(taken=[first]))

    again = [signal(one, LARGE, request="q"), signal(other, request="q"), signal(one), signal(one)]
    positions = store.submit(Batch(messages=again)).messages

    assert positions[0] == KNOWN
    assert all(position > first for position in positions[1:])
    assert [message.run for message in store.messages(lease, after=0, limit=9).messages] == [other, one, one]
    assert list(store.check()) == []


def test_a_request_that_a_run_took_is_known_also_when_the_run_has_ended(store: Store, lease: Lease) -> None:
    run = start(store, lease)
    store.submit(Batch(messages=[signal(run, request="taken")]))
    store.commit(lease, Batch(ends=[end(run)]))

    again = [signal(run, request="taken"), signal(run, request="new")]
    positions = store.submit(Batch(messages=again)).messages

    assert positions == [KNOWN, DROPPED]


@pytest.mark.parametrize("request_id", ["", "q"])
def test_a_message_for_a_run_that_has_ended_is_dropped(store: Store, lease: Lease, request_id: str) -> None:
    run = start(store, lease)
    store.commit(lease, Batch(ends=[end(run)]))

    messages = [signal(run, LARGE, request=request_id), signal(run + 1, request=request_id)]
    positions = store.submit(Batch(messages=messages)).messages

    assert positions == [DROPPED, DROPPED]
    assert store.messages(lease, after=0, limit=9).messages == []
    assert list(store.check()) == []


def test_a_message_in_the_batch_that_ends_its_run_is_dropped(store: Store, lease: Lease) -> None:
    run = start(store, lease)

    committed = store.commit(lease, Batch(ends=[end(run)], messages=[signal(run)]))

    assert committed.messages == [DROPPED]
