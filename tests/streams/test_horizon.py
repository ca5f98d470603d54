"""A transaction that is left open holds events back, and is named.

Only on PostgreSQL: who writes into a file has it alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import psycopg
import pytest

from perdure import Client, Engine, Event, Handler, Holdup, Stream
from perdure.runtime import horizon
from perdure.runtime.horizon import Horizon
from tests.runtime.waiting import until
from tests.streams.events import Paid, Placed

Orders = Stream[Placed | Paid]

_SOME = 4
"""So many looks at an event that is held back are more than one of each reader."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once, and not after five seconds."""
    monkeypatch.setattr(horizon, "_PATIENCE_MS", 50)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stream of each look that found events held back."""
    seen, note = list[str](), Horizon.note

    def count(self: Horizon, reader: object, stream: str, *, after: int, is_held_back: bool) -> None:
        if is_held_back:
            seen.append(stream)
        note(self, reader, stream, after=after, is_held_back=is_held_back)

    monkeypatch.setattr(Horizon, "note", count)
    return seen


@pytest.fixture
def left_open(postgres_server: str) -> Iterator[psycopg.Connection]:
    """A connection whose transaction has written something, or is about to."""
    with psycopg.connect(postgres_server, application_name="nightly report") as connection:
        connection.execute("SELECT pg_current_xact_id()")
        yield connection


def note_in(orders: Orders, seen: list[int]) -> Handler[Placed]:
    @orders.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event.data.amount)

    return note


def handled(orders: Orders) -> Handler[Placed]:
    return note_in(orders, [])


def windowed(orders: Orders) -> Handler[Placed]:
    return orders.window(Placed, tumbling=60, initial=0)(add)


def joined(orders: Orders) -> Handler[Placed]:
    return orders.join(Placed, orders, Paid, name="both", within=60)


def add(total: int, event: Event[Placed]) -> int:
    return total + event.data.amount


@pytest.mark.parametrize("make", [handled, windowed, joined])
async def test_who_holds_events_back_is_named_in_the_log(
    postgres_url: str,
    orders: Orders,
    left_open: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
    looks: list[str],
    make: Callable[[Orders], Handler[Placed]],
) -> None:
    async with Engine(postgres_url, handlers=[make(orders)]) as engine:
        with caplog.at_level(logging.WARNING, "perdure"):
            await engine.append(orders, Placed("a", 7))
            await until(lambda: said(caplog))
            before = len(looks)
            await until(lambda: len(looks) >= before + _SOME)
        left_open.rollback()

    (one,) = said(caplog)
    pid = left_open.info.backend_pid
    assert f"stream '{orders.name}'" in one
    assert f"pid {pid} (application 'nightly report'" in one
    assert "idle in transaction for" in one
    assert f"SELECT pg_terminate_backend({pid})" in one


async def test_events_that_are_held_back_for_a_moment_are_not_worth_a_word(
    postgres_url: str, orders: Orders, left_open: psycopg.Connection, caplog: pytest.LogCaptureFixture,
    looks: list[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(horizon, "_PATIENCE_MS", 60_000)
    seen = list[int]()
    async with Engine(postgres_url, handlers=[note_in(orders, seen)]) as engine:
        await engine.append(orders, Placed("a", 7))
        await until(lambda: len(looks) >= _SOME)
        left_open.rollback()
        await until(lambda: seen)

    assert said(caplog) == []


async def test_the_transaction_can_be_asked_for(postgres_url: str, left_open: psycopg.Connection) -> None:
    async with Client(postgres_url) as client:
        held = await client.holdup()
        left_open.rollback()
        free = await client.holdup()

    assert isinstance(held, Holdup)
    assert (held.pid, held.state) == (left_open.info.backend_pid, "idle in transaction")
    assert held.seconds < 60
    assert free is None


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one for one in caplog.messages if "its next events have waited" in one]
