"""Ways to append: in the user's transaction, in a step's or a handler's, without waiting, with a trace."""

from __future__ import annotations

import asyncio
import gc
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import psycopg
import pytest

from perdure import (
    Backpressure,
    Client,
    DuplicateConflict,
    Engine,
    Event,
    OutsideRun,
    PerdureError,
    StepError,
    StoreError,
    Stream,
    StreamError,
    step,
    workflow,
)
from perdure.blocks.event import position_text
from perdure.streaming import backlog
from perdure.testing import Harness
from tests.streams.events import Paid, Placed
from tests.streams.notes import Notes

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ids(harness: Harness, stream: str) -> list[str]:
    return [event.id for event in harness.store.store.streams.events(stream, after=0, limit=100).events]


async def test_what_is_appended_in_the_users_transaction_is_there_if_that_commits(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[str]()

    @orders.on()
    async def note(event: Event[Any]) -> None:
        seen.append(event.id)

    await harness.open_once()
    notes = Notes(harness)
    with notes.connect() as connection:
        notes.write(connection, "kept")
        await harness.append(orders, Placed("a"), id="kept", connection=connection)
        await harness.append_batch(orders, [Paid("a"), Paid("b")], connection=connection)
        within = ids(harness, orders.name)
    connection = notes.connect()
    notes.begin(connection)
    notes.write(connection, "lost")
    await harness.append(orders, Placed("a"), id="lost", connection=connection)
    connection.execute("ROLLBACK")
    connection.close()
    await harness.until(lambda: len(seen) == 3)

    assert (within, notes.read()) == ([], ["kept"])
    assert ids(harness, orders.name) == sorted(seen, key=lambda id: (id != "kept", id))
    assert note.name == "note"


async def test_the_same_id_in_a_transaction_is_one_event_or_a_conflict(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.append(orders, Placed("a"), id="one")
    notes = Notes(harness)
    with notes.connect() as connection:
        notes.write(connection, "kept")
        again = await harness.append(orders, Placed("a"), id="one", connection=connection)
        with pytest.raises(DuplicateConflict):
            await harness.append(orders, Placed("b"), id="one", connection=connection)

    assert again.is_duplicate
    assert notes.read() == ["kept"]


@pytest.mark.parametrize("harness", ["postgres"], indirect=True)
async def test_a_connection_that_is_awaited_appends_too(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    database = harness.url[: harness.url.index("schema=") - 1]
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await harness.append(orders, Placed("a"), id="one", connection=connection)
        within = ids(harness, orders.name)
    await harness.settle()

    assert (within, ids(harness, orders.name)) == ([], ["one"])


@pytest.mark.parametrize("harness", ["sqlite"], indirect=True)
async def test_a_connection_without_a_transaction_or_to_another_file_is_refused(
    harness: Harness, orders: Stream[Placed | Paid], tmp_path: Path
) -> None:
    await harness.open_once()
    connection = Notes(harness).connect()
    with pytest.raises(StoreError, match="no transaction"):
        await harness.append(orders, Placed("a"), connection=connection)
    connection.close()
    elsewhere = apsw.Connection(str(tmp_path / "other.db"))
    with elsewhere as other, pytest.raises(StoreError, match="not to store"):
        await harness.append(orders, Placed("a"), connection=other)

    assert ids(harness, orders.name) == []


async def test_a_step_and_a_handler_append_in_their_own_transactions(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    @step(transaction=True)
    def pays(order: str) -> str:
        return orders.append_within(Paid(order)).position

    @workflow
    async def checks_out(order: str) -> str:
        return await pays(order)

    @orders.on(Placed, transaction=True)
    def pays_at_once(event: Event[Placed], connection: Any) -> None:
        orders.append_within(Paid(event.key))
        if event.attempt == 1:
            raise ValueError("not yet")

    await harness.append(orders, Placed("a"))
    position = await harness.run(checks_out("b"))
    await harness.settle()
    first = len(ids(harness, orders.name))
    await harness.advance(5)
    events = harness.store.store.streams.events(orders.name, after=0, limit=100).events

    assert position == position_text(events[1].position)
    assert (first, [event.key for event in events]) == (2, ["a", "b", "a"])
    assert pays_at_once.name == "pays_at_once"


async def test_append_within_says_where_it_belongs(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    @step
    def pays(order: str) -> None:
        with pytest.raises(StepError, match="transaction=True"):
            orders.append_within(Paid(order))

    @workflow
    async def checks_out(order: str) -> None:
        await pays(order)

    await harness.run(checks_out("b"))
    with pytest.raises(OutsideRun, match="append_within"):
        orders.append_within(Paid("a"))


async def test_what_is_appended_without_waiting_is_written_in_order_and_told(
    tmp_path: Path, orders: Stream[Placed | Paid]
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    async with Engine(url, workflows=[], handlers=[]) as engine:
        soon = engine.append_nowait(orders, Placed("a", 1), id="1")
        await engine.append(orders, Placed("a", 2), id="2")
        position = (await soon).position
        clash = engine.append_nowait(orders, Placed("a", 3), id="1")
        engine.append_nowait(orders, Placed("a", 4), id="4")
        with pytest.raises(DuplicateConflict):
            await clash
        engine.append_nowait(orders, Placed("a", 5), id="5")
    async with Client(url) as client:
        client.append_nowait(orders, Placed("a", 6), id="6")
    async with Client(url) as client:
        page = await client.door.read(lambda store: store.streams.events(orders.name, after=0, limit=9))

    assert position.endswith("1")
    assert [event.id for event in page.events] == ["1", "2", "4", "5", "6"]


async def test_what_waits_behind_a_first_event_of_its_type_hears_that_the_engine_has_stopped(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.open_once()
    engine = harness.engine
    await engine.append(orders, Paid("a"))
    harness.store.fail_before_commit()
    engine.driver.committer.check_lease()
    await harness.until(lambda: engine.driver.committer.error)

    asked = [engine.append_nowait(orders, value) for value in (Placed("a"), Paid("b"), Placed("c"))]
    outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)

    assert all(isinstance(one, StoreError) for one in outcomes)


async def test_nothing_is_said_of_an_append_that_fails_when_nobody_waits_for_it_any_more(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    said: list[object] = []
    await harness.open_once()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
    harness.store.hold_up_commits()
    appending = asyncio.ensure_future(harness.append(orders, Placed("17", 1)))
    await harness.until(lambda: harness.store.held_up)

    appending.cancel()
    await harness.kill()
    gc.collect()

    assert said == []


async def test_above_the_bound_an_append_waits_and_one_that_cannot_wait_is_refused(
    harness: Harness, orders: Stream[Placed | Paid], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "EVENTS_MAX", 3)
    await harness.open_once()
    engine = harness.engine
    harness.store.hold_up_commits()
    soon = [engine.append_nowait(orders, Placed("a"), id=str(number)) for number in range(3)]
    with pytest.raises(Backpressure, match=f"{orders.name}.*3 events") as refused:
        engine.append_nowait(orders, Placed("a"), id="refused")
    waiting = [
        asyncio.create_task(engine.append(orders, Placed("a"), id=f"waits {number}")) for number in range(5)
    ]
    await harness.until(lambda: harness.store.held_up)
    asked = engine._backlog
    assert asked is not None
    most = asked.events
    harness.store.release_commits()
    await asyncio.gather(*soon, *waiting)

    assert isinstance(refused.value, StreamError)
    assert (most, asked.events, asked.bytes) == (3, 0, 0)
    assert ids(harness, orders.name) == ["0", "1", "2", *(f"waits {number}" for number in range(5))]


async def test_bytes_are_bounded_too(
    harness: Harness, orders: Stream[Placed | Paid], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "BYTES_MAX", 1_000)
    await harness.open_once()
    harness.store.hold_up_commits()
    soon = harness.engine.append_nowait(orders, Placed("a" * 900))
    more = harness.engine.append_nowait(orders, Placed("a" * 900))
    with pytest.raises(Backpressure, match=r"1,8\d\d bytes"):
        harness.engine.append_nowait(orders, Placed("a"))
    harness.store.release_commits()

    assert (await soon).position < (await more).position


async def test_an_event_keeps_the_trace_that_it_is_given_or_that_of_the_current_span(
    harness: Harness, orders: Stream[Placed | Paid], monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = list[str]()
    states = list[str]()

    @orders.on(order="stream")
    async def note(event: Event[Any]) -> None:
        traces.append(event.trace_parent)
        states.append(event.trace_state)

    state = SimpleNamespace(to_header=lambda: "rojo=1")
    span = SimpleNamespace(is_valid=True, trace_id=0xA, span_id=0xB, trace_flags=1, trace_state=state)
    fake = SimpleNamespace(get_current_span=lambda: SimpleNamespace(get_span_context=lambda: span))
    await harness.append(orders, Placed("a"), trace_parent=TRACE)
    await harness.append(orders, Placed("a"))
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", fake)  # type: ignore[arg-type]
    await harness.append(orders, Placed("a"))
    await harness.append(orders, Placed("a"), trace_parent="")
    with pytest.raises(PerdureError, match="traceparent"):
        await harness.append(orders, Placed("a"), trace_parent="mine")
    await harness.settle()

    assert traces == [TRACE, "", f"00-{0xA:032x}-{0xB:016x}-01", ""]
    assert states == ["", "", "rojo=1", ""]
    assert note.name == "note"


async def test_a_batch_with_ids_can_be_brought_in_again_and_happened_when_it_did(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    amounts, at = range(4), datetime(2020, 1, 1, tzinfo=UTC)
    values = [Placed("a", amount) for amount in amounts]
    names = [f"row-{amount}" for amount in amounts]
    times = [at + timedelta(days=amount) for amount in amounts]

    some = await harness.append_batch(orders, values[:2], ids=names[:2], times=times[:2], source="file")
    told = await harness.append_batch(orders, values, ids=names, times=times, source="file")
    with pytest.raises(DuplicateConflict):
        await harness.append_batch(orders, [Placed("b"), Placed("c")], ids=["row-9", "row-0"], source="file")
    await harness.settle()
    kept = (await harness.events(orders)).events

    assert [one.is_duplicate for one in told] == [True, True, False, False]
    assert [one.position for one in told[:2]] == [one.position for one in some]
    assert [(one.id, one.time, one.data) for one in kept] == list(zip(names, times, values, strict=True))


@pytest.mark.parametrize("given", [{"ids": ["one"]}, {"times": []}, {"ids": ["1", "2", "3"]}])
async def test_a_batch_with_an_id_too_few_or_too_many_is_refused_whole(
    harness: Harness, orders: Stream[Placed | Paid], given: dict[str, Any]
) -> None:
    with pytest.raises(PerdureError, match="2 events"):
        await harness.append_batch(orders, [Placed("a"), Placed("b")], **given)
    await harness.settle()

    assert (await harness.events(orders)).events == []
