"""What is sent to a run while it is being claimed: nothing is passed over, and nothing overtaken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from perdure import Client, Engine, Signal, workflow
from perdure.errors import LeaseLost
from perdure.runtime.driver import Driver
from perdure.runtime.inbox import Inbox
from perdure.stores.base import Loaded, Sight
from perdure.stores.opening import open_store
from tests.runtime.test_glance import driver_of
from tests.runtime.waiting import until

word = Signal[str]("word")


@workflow
async def hears_one() -> str:
    return await word.receive()


@workflow
async def hears_two() -> str:
    return f"{await word.receive()}, {await word.receive()}"


@workflow
async def waits_for_nothing() -> str:
    return "done"


class HeldClaim:
    """Holds each claim up until it may go on; and then the answer of the first that brings something."""

    def __init__(self, store: Any) -> None:
        self._claim = store.claim
        self.may_begin = threading.Event()
        self.is_on_disk = threading.Event()
        self.may_be_told = threading.Event()
        store.claim = self.claim

    def claim(self, *asked: Any, **named: Any) -> list[int]:
        self.may_begin.wait(20)
        numbers: list[int] = self._claim(*asked, **named)
        if numbers:
            self.is_on_disk.set()
            self.may_be_told.wait(20)
        return numbers

    def let_go(self) -> None:
        for gate in (self.may_begin, self.may_be_told):
            gate.set()


@pytest.fixture
def hold() -> Iterator[Callable[[Driver], HeldClaim]]:
    """Hold the claims of a worker from now on."""
    held: list[HeldClaim] = []

    def hold(driver: Driver) -> HeldClaim:
        held.append(HeldClaim(driver.store))
        return held[-1]

    yield hold
    for one in held:
        one.let_go()


async def test_what_was_sent_before_a_claim_is_not_passed_over_for_what_came_before_its_answer(
    url: str, hold: Callable[[Driver], HeldClaim]
) -> None:
    async with Engine(url) as engine, Client(url) as client:
        driver = driver_of(engine)
        look: Any = driver.look_for_messages
        inbox: Inbox = look.__self__
        other = await engine.start(hears_one())
        held = hold(driver)
        run = await client.start(hears_two(), id="it")
        await run.send(word, "first")
        before = inbox.after
        await (await client.get(other.id)).send(word, "hello")  # for which all before it is looked through
        await until(lambda: inbox.after > before)

        held.may_begin.set()
        await until(held.is_on_disk.is_set)
        before = inbox.after
        await run.send(word, "second")
        await until(lambda: inbox.after > before and driver.reads.is_quiet)
        held.may_be_told.set()

        assert await run.result() == "first, second"


async def test_a_run_that_was_read_before_it_was_claimed_and_arrives_after_is_taken_up(
    postgres_url: str, hold: Callable[[Driver], HeldClaim], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_read, may_arrive = threading.Event(), threading.Event()
    async with Engine(postgres_url) as engine, Client(postgres_url) as client:
        driver = driver_of(engine)
        held = hold(driver)
        held.may_be_told.set()
        load = driver.store.load

        def load_late(numbers: Sequence[int]) -> list[Loaded]:
            found = load(numbers)
            is_read.set()
            may_arrive.wait(20)
            return found

        monkeypatch.setattr(driver.store, "load", load_late)
        run = await client.start(waits_for_nothing(), id="it")
        row = driver.store.run_by_id("it")
        assert row is not None
        driver.want(row.number)  # as when its time has come
        await until(is_read.is_set)
        held.may_begin.set()
        await until(lambda: held.is_on_disk.is_set() and not driver.claiming)
        may_arrive.set()

        assert await run.result() == "done"


async def test_a_run_that_two_claims_are_to_bring_is_taken_up_though_the_second_brings_nothing(
    url: str, hold: Callable[[Driver], HeldClaim]
) -> None:
    async with Engine(url) as engine, Client(url) as client:
        driver = driver_of(engine)
        held = hold(driver)
        held.may_be_told.set()
        run = await client.start(waits_for_nothing(), id="it")
        await until(lambda: driver.claiming)
        row = driver.store.run_by_id("it")
        assert row is not None
        driver.want(row.number)  # as when something is sent to it: it is to be claimed by its number

        await until(lambda: driver.reads.is_quiet and driver.committer._work.qsize() > 0)
        held.may_begin.set()

        async with asyncio.timeout(10):
            assert await run.result() == "done"


async def test_a_claim_that_is_told_when_its_lease_is_lost_ends_the_worker_and_not_in_a_circle(
    url: str, hold: Callable[[Driver], HeldClaim], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[int]()
    async with Engine(url) as late, Client(url) as client:
        driver = driver_of(late)
        load = driver.store.load

        def load_and_count(numbers: Sequence[int]) -> list[Loaded]:
            loaded.extend(numbers)
            assert len(loaded) < 100, "it is read again and again"
            return load(numbers)

        monkeypatch.setattr(driver.store, "load", load_and_count)
        monkeypatch.setattr(driver.store, "glance", lambda *_, **__: Sight(runs=False, messages=False))
        held = hold(driver)
        held.may_begin.set()
        run = await client.start(hears_one(), id="it")
        await until(held.is_on_disk.is_set)
        with closing(open_store(url)) as beside:
            beside.release(driver.lease)  # as when its time is over
        async with Engine(url) as other:
            await until(lambda: other.recovered)
            held.may_be_told.set()

            with pytest.raises(LeaseLost):
                async with asyncio.timeout(5):  # sooner than it would renew it
                    await late.serve()
            assert len(loaded) == 1
            await run.send(word, "hello")
            assert await run.result() == "hello"
