"""`lag` and `seek`: what people see of handlers that are behind, and how they send them elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

import psycopg
import pytest

from perdure import Client, Engine, Event, Retry, Stream
from perdure.stores.postgres import PostgresStore
from perdure.stores.sqlite import SqliteStore
from tests.faces.conftest import Perdure


@dataclass(frozen=True)
class Placed:
    key: str


orders = Stream("orders", Placed, key=lambda order: order.key)


@pytest.fixture(autouse=True)
def handled(project: Path) -> Iterator[None]:
    """Three orders that were handled, of which one is parked; and one since, when nobody works any more."""

    @orders.on(retry=Retry(attempts=1))
    async def count(event: Event[Placed]) -> None:
        if event.data.key == "bad":
            raise ValueError("bad")

    async def fill() -> None:
        url = f"sqlite:///{project}/perdure.db"
        async with Engine(url, handlers=[count]) as engine:
            for key in ("a", "b", "bad"):
                await engine.append(orders, Placed(key), id=key)
            subscription = engine.subscription(count)
            while (await subscription.lag()).events:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
        async with Client(url) as client:
            await client.append(orders, Placed("c"), id="c")

    asyncio.run(fill())
    yield
    from perdure.blocks.serving import _defined

    _defined._handlers.discard(count)


def positions(project: Path) -> list[str]:
    from perdure.core.positions import position_text

    store = SqliteStore(project / "perdure.db")
    events = store.streams.events("orders", after=0, limit=9).events
    store.close()
    return [position_text(event.position) for event in events]


def test_the_lag_of_each_handler_is_a_line(perdure: Perdure) -> None:
    head, line = perdure("lag").out.splitlines()

    assert head.split() == ["HANDLER", "STATUS", "EVENTS", "BEHIND", "IN/S", "OUT/S", "DONE", "IN", "PARKED"]
    assert line.split()[:3] == ["orders/count", "ok", "1"]
    assert " 1 (" in line


def test_a_handler_that_is_named_is_shown_lane_by_lane(perdure: Perdure) -> None:
    out = perdure("lag", "orders/count").out

    assert out.count(" ok ") == 17
    assert out.count("nobody") == 16
    assert perdure("lag", "orders").out.count("nobody") == 0


def test_the_lag_is_json_for_programs(perdure: Perdure) -> None:
    (lag,) = perdure("lag", "--json").lines

    assert (lag["stream"], lag["handler"], lag["status"], lag["events"], lag["parked"]) == (
        "orders", "count", "ok", 1, 1,
    )  # fmt: skip
    assert len(lag["lanes"]) == 16


def test_a_handler_that_is_not_there_is_named(perdure: Perdure) -> None:
    for command in (
        ("lag", "orders/nobody"),
        ("lag", "nobody"),
        ("seek", "orders/nobody", "--to", "earliest"),
    ):
        answer = perdure(*command)

        assert answer.code == 3
        assert "orders/count" in answer.err


def test_a_check_fails_for_a_handler_that_does_not_get_on(perdure: Perdure, project: Path) -> None:
    well = perdure("lag", "--check")
    store = SqliteStore(project / "perdure.db")
    number = store.streams.subscriptions()[0].number
    store.streams.seek(number, 0, now_ms=1, who="", reason="")
    store.close()
    ill = perdure("lag", "--check")

    assert (well.code, ill.code) == (0, 1)
    assert "rewind" in ill.out


def test_a_seek_is_tried_first_and_then_done(perdure: Perdure, project: Path) -> None:
    tried = perdure("seek", "orders/count", "--to", "earliest")
    before = perdure("lag", "--json").lines[0]["events"]
    done = perdure("seek", "orders/count", "--to", "earliest", "--reason", "wrong sums", "--yes")
    after = perdure("lag", "--json").lines[0]["events"]

    assert (tried.code, before, done.code, after) == (0, 1, 0, 4)
    assert "would go on" in tried.out
    assert "--yes" in tried.err
    assert "delivered again: 3 events, 1 of them parked until now" in done.out
    assert "never delivered: 0 events" in done.out


@pytest.mark.parametrize(
    ("arguments", "event"),
    [(("--event", "b"), 1), (("--to", "position"), 2), (("--to", "2020-01-01"), 0), (("--to", "1h"), 0)],
)
def test_a_place_is_an_event_a_position_or_a_time(
    perdure: Perdure, project: Path, arguments: tuple[str, str], event: int
) -> None:
    there = positions(project)
    words = [there[2] if word == "position" else word for word in arguments]

    answer = perdure("seek", "orders/count", *words, "--json")

    assert answer.json["position"] == there[event]
    assert answer.json["is_done"] is False


@pytest.mark.parametrize(
    "arguments",
    [("orders",), ("orders/count",), ("orders/count", "--to", "nowhere"), ("/count", "--to", "1h")],
)
def test_what_cannot_be_understood_is_refused(perdure: Perdure, arguments: tuple[str, ...]) -> None:
    answer = perdure("seek", *arguments)

    assert answer.code == 2
    assert "hint: " in answer.err


def test_a_transaction_that_holds_events_back_is_a_line(
    perdure: Perdure, postgres_url: str, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.faces.cli.lagging._HOLDUP_S", 0.0)
    PostgresStore(postgres_url).close()
    with psycopg.connect(postgres_server, application_name="nightly report") as left_open:
        left_open.execute("SELECT pg_current_xact_id()")
        answer = perdure("lag", "--store", postgres_url)
        pid = left_open.info.backend_pid
        left_open.rollback()
    after = perdure("lag", "--store", postgres_url)

    assert f"until it ends: the transaction of pid {pid} (application 'nightly report'" in answer.err
    assert f"hint: End it: SELECT pg_terminate_backend({pid})." in answer.err
    assert "until it ends" not in after.err


def test_a_handler_that_is_gone_is_forgotten_once_it_was_said_what_goes(
    perdure: Perdure, project: Path
) -> None:
    tried = perdure("unsubscribe", "orders/count")
    kept = perdure("lag", "--json").lines
    done = perdure("unsubscribe", "orders/count", "--yes")

    assert (tried.code, len(kept), done.code) == (0, 1, 0)
    assert "would be forgotten" in tried.out
    assert "--yes" in tried.err
    assert "is forgotten" in done.out
    assert "no longer: 1 event\n" in done.out
    assert "parked: 1 event\n" in done.out
    assert perdure("lag", "--json").lines == []
    assert perdure("unsubscribe", "orders/count").code == 3
    assert perdure("unsubscribe", "orders").code == 2


@pytest.mark.parametrize("words", [(), ("--yes",), ("--json",)])
def test_one_that_a_worker_serves_is_not_forgotten(
    perdure: Perdure, project: Path, words: tuple[str, ...]
) -> None:
    store = SqliteStore(project / "perdure.db")
    lease = store.acquire("the worker", now_ms=time_ns() // 1_000_000, ttl_ms=100_000)
    number = store.streams.subscriptions()[0].number
    store.streams.claim_lanes(lease, [number], now_ms=1)

    answer = perdure("unsubscribe", "orders/count", *words)
    store.close()

    assert answer.code == 1
    assert "'the worker' serves orders/count" in answer.err
    assert len(perdure("lag", "--json").lines) == 1


def test_who_holds_up_a_stream_and_is_nobodys_is_named_with_the_command_that_ends_it(
    perdure: Perdure, project: Path
) -> None:
    alone = perdure("lag")
    named = perdure("lag", "orders/count")
    store = SqliteStore(project / "perdure.db")
    lease = store.acquire("the worker", now_ms=time_ns() // 1_000_000, ttl_ms=100_000)
    served = store.streams.subscribe("orders", "served", lanes=2, from_start=True).number
    store.streams.claim_lanes(lease, [served], now_ms=1)
    beside = perdure("lag")
    store.close()

    assert "unsubscribe" not in alone.err
    for answer in (named, beside):
        assert (
            "No worker serves orders/count: its stream keeps for it what it has not done, 1 event."
            in answer.err
        )
        assert "perdure unsubscribe orders/count" in answer.err
        assert "orders/served" not in answer.err
