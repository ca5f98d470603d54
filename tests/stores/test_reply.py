"""Replies: the first answer to a request stands."""

from __future__ import annotations

import pytest

from perdure.stores.base import Batch, Lease, Reply, Store
from tests.stores.build import LARGE


@pytest.mark.parametrize("payload", [None, b"1", LARGE])
@pytest.mark.parametrize("ok", [True, False])
def test_a_reply_is_read_back_by_its_request(
    store: Store, lease: Lease, ok: bool, payload: bytes | None
) -> None:
    reply = Reply("q", ok=ok, payload=payload, at_ms=5)

    store.commit(lease, Batch(replies=[reply]))

    found = store.reply("q")
    assert found == reply
    assert found is not None
    assert found.ok is ok
    assert store.reply("other") is None


def test_many_are_read_at_once(store: Store, lease: Lease) -> None:
    rows = [Reply(f"q{place}", ok=True, payload=LARGE, at_ms=place) for place in range(3)]
    store.commit(lease, Batch(replies=rows))

    found = store.replies(["q2", "other", "q0"])

    assert sorted(found, key=lambda reply: reply.request) == [rows[0], rows[2]]
    assert store.replies([]) == []


def test_the_first_reply_to_a_request_stands(store: Store, lease: Lease) -> None:
    first = Reply("q", ok=True, payload=b"1", at_ms=5)
    store.commit(lease, Batch(replies=[first]))

    store.commit(lease, Batch(replies=[Reply("q", ok=False, payload=LARGE, at_ms=6)]))

    assert store.reply("q") == first
    assert list(store.check()) == []


def test_old_replies_are_removed_with_old_runs(store: Store, lease: Lease) -> None:
    rows = [Reply("old", ok=True, payload=LARGE, at_ms=5), Reply("new", ok=True, payload=b"1", at_ms=50)]
    store.commit(lease, Batch(replies=rows))

    store.remove_ended(before_ms=50, limit=10)

    assert store.reply("old") is None
    assert store.reply("new") == rows[1]
    assert list(store.check()) == []
