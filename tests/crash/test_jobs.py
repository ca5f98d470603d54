"""Steps that run at another worker than their run, when one of the two is killed, or stands still."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from perdure import Client, RunParked
from tests.crash.orders import last_film, rendered
from tests.crash.test_workers import SHORT_LEASE_MS, Workers, steps_of, wait_for, workers

__all__ = ["workers"]

pytestmark = pytest.mark.slow

TAGGED = "--tag=gpu"


async def test_a_step_whose_worker_is_killed_is_run_by_another_with_the_tag(workers: Workers) -> None:
    workers.start()
    victim = workers.start(TAGGED)
    async with Client(workers.url) as client, asyncio.timeout(30):
        run = await client.start(rendered(), id="one")
        await asyncio.to_thread(wait_for, victim, "begun", of="stdout")
        workers.kill(victim.pid)
        heir = workers.start(TAGGED)

        result = await run.result()

    effects = workers.effects()
    assert result == heir.pid
    assert [effect.process for effect in effects] == [victim.pid, heir.pid]
    assert len({effect.key for effect in effects}) == 1
    assert steps_of(workers.journals()["one"]) == ["0/0/render"]


async def test_a_step_is_neither_lost_nor_done_again_when_its_runs_worker_is_killed(workers: Workers) -> None:
    victim = workers.start()
    async with Client(workers.url) as client, asyncio.timeout(30):
        run = await client.start(rendered(), id="one")
        await until_queued(client)
        tagged = workers.start(TAGGED)
        await asyncio.to_thread(wait_for, tagged, "begun", of="stdout")
        workers.kill(victim.pid)

        result = await run.result()

    assert result == tagged.pid
    assert [effect.process for effect in workers.effects()] == [tagged.pid]
    assert steps_of(workers.journals()["one"]) == ["0/0/render"]


async def test_a_worker_that_stood_still_past_its_lease_sends_no_outcome_when_it_wakes(
    workers: Workers,
) -> None:
    workers.start()
    stands_still = workers.start(TAGGED, lease_ms=SHORT_LEASE_MS, stands_still=True)
    async with Client(workers.url) as client, asyncio.timeout(30):
        run = await client.start(rendered(), id="one")
        _, status = await asyncio.to_thread(os.waitpid, stands_still.pid, os.WUNTRACED)
        heir = workers.start(TAGGED)
        result = await run.result()
        before = workers.journals()
        stands_still.send_signal(signal.SIGCONT)
        said = await asyncio.to_thread(wait_for, stands_still, "Worker '")

    assert os.WIFSTOPPED(status)
    assert result == heir.pid
    assert "no longer holds its lease" in said
    assert workers.journals() == before
    assert [effect.process for effect in workers.effects()] == [stands_still.pid, heir.pid]


async def test_a_step_that_kills_its_workers_parks_its_run_after_five(workers: Workers) -> None:
    workers.start()
    async with Client(workers.url) as client, asyncio.timeout(60):
        run = await client.start(last_film(), id="one")
        for _ in range(5):
            victim = workers.start(TAGGED)
            await asyncio.to_thread(victim.wait)
        workers.start(TAGGED)

        with pytest.raises(RunParked, match="5 workers died while they ran step '0/0/deadly' of run 'one'"):
            await run.result()
    assert len(workers.effects()) == 5


async def until_queued(client: Client) -> None:
    """Until a step waits for a worker with a tag."""
    while not (await client.health()).unserved:  # noqa: ASYNC110 (it is another process that gets on)
        await asyncio.sleep(0.01)
