"""What was sent to a run and not taken before its end: handed on, or refused, whoever comes to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from perdure import Client, Engine, RunClosed, Signal, Update, continue_as_new, workflow
from perdure.core.records import Message, MessageKind, NewRun, Status
from perdure.stores.base import Batch, RunEnd, Store
from perdure.stores.opening import open_store
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from perdure.stores.postgres.messages import send_messages
from tests.runtime.waiting import until

answer = Signal[str]("answer")
double = Update[int, int]("double")


@workflow
async def waits(turn: int = 1) -> str:
    said = await answer.receive()
    return f"{said} in turn {turn}"


@workflow
async def goes_on_once(turn: int = 1) -> str:
    said = await answer.receive()
    if said == "go on":
        continue_as_new(goes_on_once(turn + 1))
    return f"{said} in turn {turn}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """The same store, in the test's hands."""
    opened = open_store(url)
    yield opened
    opened.close()


def message(run: int, kind: MessageKind, name: str, payload: bytes, request: str = "") -> Message:
    return Message(0, run, kind, name, payload, request, 1)


def end_before_it_takes(store: Store, *sent: Message, goes_on: bool = False) -> None:
    """Be the worker that ends the run `it` when something was just sent to it, and that dies then."""
    lease = store.acquire("dies", now_ms=0, ttl_ms=60_000)
    run = store.run_by_id("it")
    assert run is not None
    assert store.claim_these(lease, [run.number], now_ms=0) == {run.number}
    store.submit(Batch(messages=[each._replace(run=run.number) for each in sent]))
    status = Status.CONTINUED if goes_on else Status.COMPLETED
    next_one = NewRun("it", run.workflow, b'{"turn":2}', bytes(16), 1, run.python)
    ends = [RunEnd(status, None if goes_on else b'"done"', 1, None, run.number)]
    store.commit(lease, Batch(ends=ends, starts=[next_one] if goes_on else []))
    store.release(lease)


async def nothing_is_left(store: Store, run: int) -> None:
    await until(lambda: not store.messages_for(run))


async def test_what_a_run_did_not_take_before_it_continued_is_handed_on_by_who_comes_next(
    url: str, store: Store
) -> None:
    async with Client(url) as client:
        run = await client.start(waits(), id="it")
        sent = message(0, MessageKind.SIGNAL, "answer", b'"here"')
        end_before_it_takes(store, sent, goes_on=True)
        before = store.run_by_id("it", generation=1)
        assert before is not None

        async with Engine(url, workflows=[waits]):
            result = await run.result()
            await nothing_is_left(store, before.number)

    assert result == "here in turn 2"


async def test_what_a_run_did_not_take_before_its_end_is_removed_and_who_asked_hears_of_it(
    url: str, store: Store
) -> None:
    async with Client(url) as client:
        await client.start(waits(), id="it")
        run = store.run_by_id("it")
        assert run is not None
        signal = message(0, MessageKind.SIGNAL, "answer", b'"late"')
        end_before_it_takes(store, signal, message(0, MessageKind.UPDATE, "double", b"21", "question"))
        async with Engine(url, workflows=[waits]):
            await nothing_is_left(store, run.number)

    reply = store.reply("question")
    assert reply is not None
    assert not reply.ok
    assert b"RunClosed" in (reply.payload or b"")


# -- on a server, where one can be sent at the very moment of the end -------------------------------


def send_slowly(
    url: str, sent: Message, is_sent: threading.Event, may_commit: threading.Event
) -> Callable[[], int]:
    """Send something that finds the run open, and commit it later."""
    slow = PostgresStore(url)

    def work(link: Link) -> int:
        with link.transaction():
            pass
        ((position,), _) = send_messages(link, [sent], lease=0)
        is_sent.set()
        assert may_commit.wait(20)
        return position

    def send() -> int:
        try:
            return slow._database.write(work, tell=lambda _: True)
        finally:
            slow.close()

    return send


async def test_a_signal_that_is_committed_right_after_its_run_continued_reaches_the_next_generation(
    postgres_url: str,
) -> None:
    is_sent, may_commit = threading.Event(), threading.Event()
    store = PostgresStore(postgres_url)
    async with Engine(postgres_url, workflows=[goes_on_once]) as engine:
        run = await engine.start(goes_on_once(), id="it")
        row = store.run_by_id("it")
        assert row is not None
        late = message(row.number, MessageKind.SIGNAL, "answer", b'"late"')
        sending = asyncio.create_task(asyncio.to_thread(send_slowly(postgres_url, late, is_sent, may_commit)))
        await asyncio.to_thread(is_sent.wait, 20)

        await run.send(answer, "go on")
        await until(lambda: store.run_by_id("it", generation=2) is not None)
        may_commit.set()

        assert await sending > 0
        assert await run.result() == "late in turn 2"
        await nothing_is_left(store, row.number)
    store.close()


async def test_an_update_that_is_committed_right_after_the_end_of_its_run_is_refused(
    postgres_url: str,
) -> None:
    is_sent, may_commit = threading.Event(), threading.Event()
    store = PostgresStore(postgres_url)
    async with Engine(postgres_url, workflows=[waits]) as engine:
        run = await engine.start(waits(), id="it")
        row = store.run_by_id("it")
        assert row is not None
        late = message(row.number, MessageKind.UPDATE, "double", b"21", "question")
        sending = asyncio.create_task(asyncio.to_thread(send_slowly(postgres_url, late, is_sent, may_commit)))
        await asyncio.to_thread(is_sent.wait, 20)
        await run.send(answer, "done")
        await run.result()
        may_commit.set()

        assert await sending > 0
        await nothing_is_left(store, row.number)
        with pytest.raises(RunClosed):
            await run.update(double, 1)
    reply = store.reply("question")
    store.close()
    assert reply is not None
    assert not reply.ok
