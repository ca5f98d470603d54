"""Runs that are under way go on after a move, in the other store, as if nothing had been."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from perdure import Client, Engine, RunStatus, StoreMoved
from perdure.moving import move
from perdure.stores.opening import open_store
from tests.moving.program import (
    add,
    adds_up,
    broken,
    collects_all,
    draws_lots,
    go,
    goes_round,
    has_one_child,
    parks_itself,
    sleeps_for_long,
    stage,
    waits_for_a_worker,
    waits_long,
    worked,
)
from tests.runtime.waiting import until


@pytest.fixture(autouse=True)
def forget() -> None:
    worked.clear()
    broken.clear()


async def reach(engine: Engine, id: str, value: str) -> None:
    """Wait until a run has published a value: what it did before is on disk."""
    before = 0
    while True:
        run = await engine.get(id)  # its latest generation
        async for said in run.watch(stage):
            if said == value:
                return
        before += 1
        assert before < 10, f"{id} has ended"


async def until_sent(url: str) -> None:
    """Wait until something was sent to run number 1."""
    store = open_store(url)
    try:
        await until(lambda: store.messages_for(1))
    finally:
        store.close()


async def test_a_step_that_waits_for_a_worker_with_a_tag_finds_one_in_the_other_store(
    urls: tuple[str, str],
) -> None:
    async with Engine(urls[0]) as engine:
        await engine.start(waits_for_a_worker("a"), id="a")
        await reach(engine, "a", "asks")

    await asyncio.to_thread(move, *urls)

    async with Engine(urls[1], workflows=[], tags=["gpu"]):
        async with asyncio.timeout(20):
            while not worked["a"]:  # noqa: ASYNC110 (its run is in no memory, and is not needed)
                await asyncio.sleep(0.005)
        async with Engine(urls[1]) as engine:
            result = await (await engine.get("a", waits_for_a_worker)).result()

    assert result == "a elsewhere"
    assert worked["a"] == 1


async def test_a_run_that_waits_for_a_signal_goes_on(urls: tuple[str, str]) -> None:
    async with Engine(urls[0]) as engine:
        await engine.start(waits_long("a"), id="a")
        await reach(engine, "a", "asked")

    moved = await asyncio.to_thread(move, *urls)

    async with Engine(urls[1]) as engine:
        run = await engine.get("a", waits_long)
        assert await run.state(stage) == "asked"
        await run.send(go, "yes")
        assert await run.result() == "yes"
        assert await run.state(stage) == "told yes"
    assert (moved.runs, moved.records) == (1, 1)
    assert worked == {"a before": 1, "a after": 1}


async def test_a_run_that_sleeps_wakes_up_in_the_other_store(urls: tuple[str, str]) -> None:
    async with Engine(urls[0]) as engine:
        await engine.start(sleeps_for_long(0.8), id="s")
        await reach(engine, "s", "asleep")

    await asyncio.to_thread(move, *urls)

    async with Engine(urls[1]) as engine:
        assert await (await engine.get("s", sleeps_for_long)).result() == "sleeper after"
    assert worked == {"sleeper before": 1, "sleeper after": 1}


async def test_a_parked_run_is_resumed_in_the_other_store(urls: tuple[str, str]) -> None:
    broken.add("parked")
    async with Engine(urls[0]) as engine:
        run = await engine.start(parks_itself(), id="p")
        with pytest.raises(Exception, match="is broken"):
            await run.result()

    await asyncio.to_thread(move, *urls)

    broken.clear()
    async with Engine(urls[1]) as engine:
        run = await engine.get("p", parks_itself)
        assert await run.status() is RunStatus.PARKED
        await run.resume()
        assert await run.result() == "parked"
    assert worked == {"parked": 1}


async def test_a_parent_and_its_child_find_each_other_after_a_move(urls: tuple[str, str]) -> None:
    async with Engine(urls[0]) as engine:
        await engine.start(has_one_child("c"), id="parent")
        await reach(engine, "parent", "started")
        await reach(engine, "c-child", "asked")

    await asyncio.to_thread(move, *urls)

    async with Engine(urls[1]) as engine:
        await engine.send("c-child", go, "yes")
        assert await (await engine.get("parent", has_one_child)).result() == "child: yes"
    assert worked == {"parent before": 1, "c before": 1, "c after": 1, "parent after": 1}


async def test_signals_that_were_not_taken_are_moved_in_order_and_taken_once(urls: tuple[str, str]) -> None:
    async with Client(urls[0]) as client:
        run = await client.start(collects_all(3), id="c")
        await run.send(go, "1", id="first")
        await run.send(go, "2", id="second")

    moved = await asyncio.to_thread(move, *urls)

    async with Engine(urls[1]) as engine:
        run = await engine.get("c", collects_all)
        await run.send(go, "again", id="first")
        await run.send(go, "3")
        assert await run.result() == ["1", "2", "3"]
    assert moved.messages == 2


async def test_updates_that_were_answered_are_not_handled_again(urls: tuple[str, str]) -> None:
    async with Engine(urls[0]) as engine:
        run = await engine.start(adds_up(), id="u")
        assert [await run.update(add, value) for value in (1, 2)] == [1, 3]

    moved = await asyncio.to_thread(move, *urls)

    async with Engine(urls[1]) as engine:
        run = await engine.get("u", adds_up)
        assert await run.update(add, 4) == 7
        await run.send(go, "")
        assert await run.result() == 7
    assert moved.replies == 2
    assert worked == {"add 1": 1, "add 2": 1, "add 4": 1}


async def test_all_generations_of_a_run_are_moved(urls: tuple[str, str]) -> None:
    async with Engine(urls[0]) as engine:
        await engine.start(goes_round(3), id="g")
        await reach(engine, "g", "last round")

    moved = await asyncio.to_thread(move, *urls)

    async with Engine(urls[1]) as engine:
        run = await engine.get("g", goes_round)
        await run.send(go, "round")
        assert await run.result() == "round"
        first = await engine.timeline("g", generation=1)
        assert [entry.name for entry in first.entries] == ["work"]
    assert moved.runs == 3
    assert worked == {"round 3": 1, "round 2": 1, "round 1": 1}


async def test_a_worker_that_was_killed_leaves_runs_that_can_be_moved(urls: tuple[str, str]) -> None:
    async with Engine(urls[0]) as engine:
        await engine.start(waits_long("a"), id="a")
        await reach(engine, "a", "asked")
    store = open_store(urls[0])
    dead = store.acquire("dead", now_ms=0, ttl_ms=1)
    store.claim_these(dead, [1], now_ms=0)
    store.close()

    await asyncio.to_thread(move, *urls)

    async with Engine(urls[1]) as engine:
        await engine.send("a", go, "yes")
        assert await (await engine.get("a", waits_long)).result() == "yes"
    assert worked == {"a before": 1, "a after": 1}


async def test_runs_go_there_and_back_to_a_new_store(
    tmp_path: Path, postgres_url: str, more_urls: Callable[[], str]
) -> None:
    places = [f"sqlite:///{tmp_path}/1.db", postgres_url, f"sqlite:///{tmp_path}/2.db", more_urls()]
    async with Engine(places[0]) as engine:
        await engine.start(draws_lots(), id="d")
        await engine.start(collects_all(4), id="c")
        await reach(engine, "d", "drawn")

    for said, (here, there) in enumerate(pairwise(places)):
        async with Client(here) as client:
            await client.send("c", go, f"{said}", signal_id=f"{said}")
        await asyncio.to_thread(move, here, there)
        async with Engine(there) as engine:
            assert (await engine.health()).wrongs == []
            await engine.send("c", go, "again", signal_id=f"{said}")

    async with Engine(places[-1]) as engine:
        await engine.send("d", go, "")
        await engine.send("c", go, "last")
        assert await (await engine.get("d", draws_lots)).result() == 700_000
        assert await (await engine.get("c", collects_all)).result() == ["0", "1", "2", "last"]
    assert worked == {"draw": 1}
    for left in places[:-1]:
        with pytest.raises(StoreMoved):
            open_store(left)


# -- whoever still uses the store that is left -----------------------------------------------------


async def test_whoever_opens_the_store_that_was_left_hears_where_the_runs_are(urls: tuple[str, str]) -> None:
    async with Client(urls[0]) as client:
        await client.start(waits_long("a"), id="a")
    await asyncio.to_thread(move, *urls)
    where = open_store(urls[1])

    for kind in (Engine, Client):
        with pytest.raises(StoreMoved) as caught:
            async with kind(urls[0]):
                pass
        assert caught.value.other == where.address
        assert where.address in str(caught.value)
    where.close()


async def test_a_client_that_was_open_while_runs_moved_away_is_refused(urls: tuple[str, str]) -> None:
    async with Client(urls[0]) as client:
        run = await client.start(waits_long("a"), id="a")
        await asyncio.to_thread(move, *urls)

        with pytest.raises(StoreMoved):
            await run.send(go, "lost")
        with pytest.raises(StoreMoved):
            await client.start(waits_long("b"), id="b")
        with pytest.raises(StoreMoved):
            await asyncio.wait_for(run.result(), 20)
        with pytest.raises(StoreMoved):
            await run.update(add, 1)


async def test_a_client_that_waits_for_an_answer_hears_of_the_move_and_its_update_is_moved(
    urls: tuple[str, str],
) -> None:
    async with Client(urls[0]) as client:
        run = await client.start(adds_up(), id="u")
        waiting = asyncio.create_task(run.update(add, 1))
        await until_sent(urls[0])
        other = await client.start(waits_long("a"), id="a")
        await other.send(go, "yes")

        moved = await asyncio.to_thread(move, *urls)

        with pytest.raises(StoreMoved):
            await asyncio.wait_for(waiting, 20)
    assert moved.messages == 2
    async with Engine(urls[1]) as engine:
        run = await engine.get("u", adds_up)
        assert await run.update(add, 2) == 3
    assert worked["add 1"] == 1


async def test_a_client_that_waits_while_runs_move_away_hears_of_it(urls: tuple[str, str]) -> None:
    async with Client(urls[0]) as client:
        run = await client.start(waits_long("a"), id="a")
        waiting = asyncio.create_task(run.result())
        await asyncio.sleep(0)

        await asyncio.to_thread(move, *urls)

        with pytest.raises(StoreMoved):
            await asyncio.wait_for(waiting, 20)
