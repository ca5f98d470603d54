"""What a worker on PostgreSQL asks while there is nothing to do, and that nothing is missed for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perdure import Client, Engine, Signal, step, workflow
from perdure.errors import CommitsLost, LeaseLost, StoreUnavailable
from perdure.runtime.driver import Driver
from perdure.runtime.glance import Glance
from perdure.runtime.inbox import Inbox
from perdure.runtime.lease import LEASE_MS
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from perdure.stores.sight import Reading, Sight
from tests.runtime.waiting import until

word = Signal[str]("word")


@step
async def echoes(value: str) -> str:
    return value


@workflow
async def answers_what_it_hears() -> str:
    return await echoes(await word.receive())


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that are sent to the server from now on."""
    sent: list[str] = []
    run, query, do = Link.run, Link.query, Link.do

    def see_run(link: Link, name: str, *bindings: Any) -> Any:
        sent.append(name)
        return run(link, name, *bindings)

    def see_query(link: Link, text: str, *bindings: Any, **options: Any) -> Any:
        sent.append(next((name for name, known in link._sql.items() if known == text), text))
        return query(link, text, *bindings, **options)

    def see_do(link: Link, text: str) -> Any:
        sent.append(text)
        return do(link, text)

    monkeypatch.setattr(Link, "run", see_run)
    monkeypatch.setattr(Link, "query", see_query)
    monkeypatch.setattr(Link, "do", see_do)
    return sent


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks or answers_what_it_hears but when the test says so."""
    monkeypatch.setattr("perdure.runtime.lookout._TICK_OF_SERVER_S", 1_000.0)
    monkeypatch.setattr(PostgresStore, "listen", lambda store, heard: True)


def driver_of(engine: Engine) -> Driver:
    assert engine._driver is not None
    return engine._driver


def lease_ends_ms(engine: Engine) -> int:
    (row,) = driver_of(engine).store.workers(now_ms=0)
    return row.until_ms


async def glance(engine: Engine) -> None:
    """As the lookout does each second; until all that is asked is answered, and nothing is being claimed."""
    assert engine._lookout is not None
    await until_quiet(engine)
    engine._lookout._glance()
    await until_quiet(engine)


async def until_quiet(engine: Engine) -> None:
    """Wait until nothing is asked, as an engine does on several threads when it has opened."""
    driver = driver_of(engine)
    await until(lambda: driver.reads.is_quiet and not driver.claiming)


@pytest.mark.usefixtures("quiet")
async def test_an_idle_worker_asks_one_statement_a_look(postgres_url: str, statements: list[str]) -> None:
    async with Engine(postgres_url) as engine, Engine(postgres_url) as other, Client(postgres_url) as client:
        await until_quiet(other)  # it takes none of the runs
        for number in range(20):
            await client.start(answers_what_it_hears(), id=f"run-{number}")
        await glance(engine)
        await until(lambda: len(driver_of(engine).residents) == 20)
        await glance(engine)
        await until(lambda: driver_of(engine).committer.is_idle)
        await glance(engine)
        statements.clear()

        for _ in range(10):
            await glance(engine)

    assert statements[:10] == ["glance"] * 10


@pytest.mark.usefixtures("quiet")
async def test_what_was_not_told_is_found_by_a_glance(postgres_url: str) -> None:
    async with Engine(postgres_url) as engine, Client(postgres_url) as client:
        run = await client.start(answers_what_it_hears())
        await glance(engine)
        await until(lambda: driver_of(engine).residents)

        await run.send(word, "heard")
        await glance(engine)

        assert await run.result() == "heard"


@pytest.mark.usefixtures("quiet")
async def test_a_glance_renews_the_lease_when_it_is_time_and_takes_no_commit(
    postgres_url: str, statements: list[str]
) -> None:
    async with Engine(postgres_url) as engine:
        keeper = engine._keeper
        assert keeper is not None
        await glance(engine)
        until_ms = lease_ends_ms(engine)
        keeper._renew()
        statements.clear()

        await glance(engine)
        await glance(engine)

        assert statements == ["glance_and_renew", "glance"]
        assert lease_ends_ms(engine) > until_ms


@pytest.mark.usefixtures("quiet")
async def test_a_lease_that_no_glance_renews_in_time_is_renewed_by_a_commit(
    postgres_url: str, statements: list[str]
) -> None:
    async with Engine(postgres_url) as engine:
        keeper = engine._keeper
        assert keeper is not None
        keeper._renew()

        keeper._renew()
        await until(lambda: "renew_lease" in statements)

        assert keeper.wanted_until_ms() == 0


@pytest.mark.usefixtures("quiet")
async def test_a_glance_that_finds_the_lease_lost_stops_the_worker(postgres_url: str) -> None:
    async with Engine(postgres_url) as engine:
        serving = asyncio.create_task(engine.serve())
        await asyncio.sleep(0)
        driver = driver_of(engine)
        driver.store.release(driver.lease)

        await glance(engine)

        with pytest.raises(LeaseLost):
            await serving


class _Slow:
    """A worker's parts, as far as a glance needs them; answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Callable[[Any], object]] = []
        self.looked: list[str] = []
        self.stopped = False
        self.lease = self.registry = self.clock = self.reads = self.committer = self
        self.after = 0

    def ask(self, _: object, then: Callable[[Any], object]) -> None:
        self.asked.append(then)

    def names(self) -> list[str]:
        return []

    def now_ms(self) -> int:
        return LEASE_MS

    def wanted_until_ms(self) -> int:
        return 0

    def look_for_messages(self) -> None:
        self.looked.append("messages")

    def look_for_runs(self) -> None:
        self.looked.append("runs")

    def look(self) -> None:
        self.looked.append("events")

    def reading(self) -> list[Reading]:
        return []

    def complain(self, error: BaseException, doing: str) -> None:
        self.looked.append(f"{error} {doing}")


@pytest.fixture
def slow() -> Iterator[_Slow]:
    return _Slow()


def glance_of(parts: Any) -> Glance:
    driver: Driver = parts
    inbox: Inbox = parts
    return Glance(driver, inbox, parts, parts)


def test_a_server_that_has_not_answered_is_not_asked_again(slow: _Slow) -> None:
    looks = glance_of(slow)

    looks.ask()
    looks.ask()
    slow.asked[0](StoreUnavailable("away"))
    looks.ask()

    assert len(slow.asked) == 2
    assert slow.looked == ["away looking whether there is something to do"]


@pytest.mark.parametrize(
    ("seen", "looked"),
    [
        (Sight(runs=False, messages=False), []),
        (Sight(runs=True, messages=False), ["runs"]),
        (Sight(runs=False, messages=True), ["messages"]),
        (Sight(runs=False, messages=False, events=True), ["events"]),
    ],
)
def test_only_what_a_glance_has_seen_is_looked_for(slow: _Slow, seen: Sight, looked: list[str]) -> None:
    looks = glance_of(slow)
    looks.ask()

    slow.asked[0](seen)

    assert slow.looked == looked


async def test_a_worker_that_has_nothing_to_write_stops_where_its_commits_are_lost(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("perdure.runtime.lease._RENEW_EVERY_MS", 1_000_000)  # no commit comes by itself
    async with asyncio.timeout(20), Engine(postgres_url) as engine:
        store: Any = driver_of(engine).store
        store._database._acknowledged = 0, ("witness_said", 1, 1)  # which this server does not have
        store._database._writer.close()

        with pytest.raises(CommitsLost, match="has lost commits"):
            await engine.serve()
    said = [entry.message for entry in caplog.records if "has lost commits" in entry.message]
    assert len(said) == 1, "the worker says it once"
