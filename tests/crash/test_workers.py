"""Several workers on one store, in processes of their own: killed, stopped, asked to end.

The ledger is independent of the store: what a call did to the world, and in which
process, stands there. A call that stands there twice was interrupted by a kill.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from perdure import Client
from perdure.core.records import Kind, Record
from perdure.stores.base import RunQuery
from perdure.stores.opening import open_store
from tests.crash.orders import PARTS, ship, sleepy, slow

pytestmark = pytest.mark.slow

LEASE_MS = 15_000
SHORT_LEASE_MS = 1_500
RUNS = 50
RUNS_AT_ONCE = 8
KILLS = 5

Worker = subprocess.Popen[str]


class Effect(NamedTuple):
    """A line of the ledger."""

    process: int
    run: str
    call: str
    key: str


class Workers:
    """Starts workers on one store, and looks at what they did to the world."""

    def __init__(self, url: str, folder: Path, checkout: Path, stack: ExitStack) -> None:
        self.url = url
        self.killed: set[int] = set()
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self._checkout = checkout
        self._stack = stack
        self._environment = {
            **os.environ, "PERDURE_STORE": url, "LEDGER": str(self._ledger), "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join([str(checkout), *sys.path]),
        }  # fmt: skip

    def start(
        self, *options: str, lease_ms: int = LEASE_MS, stands_still: bool = False, processes: int = 1
    ) -> Worker:
        """A worker that has its lease; or a command that has several."""
        options = (*options, f"--processes={processes}")
        program = ["-m", "tests.crash.command", str(lease_ms), "worker", "tests.crash.orders", *options]
        worker = subprocess.Popen(
            [sys.executable, *program], cwd=self._checkout, text=True, bufsize=1,
            env={**self._environment, **({"STANDS_STILL": "1"} if stands_still else {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._stack.callback(end_for_good, worker)
        for _ in range(processes):
            wait_for(worker, "Took up")
        return worker

    def kill(self, process: int) -> None:
        """`kill -9`."""
        self.killed.add(process)
        os.kill(process, signal.SIGKILL)

    def effects(self) -> list[Effect]:
        return [Effect(*json.loads(line)) for line in self._ledger.read_text().splitlines()]

    def journals(self) -> dict[str, list[Record]]:
        """What is recorded, by the runs' ids."""
        store = open_store(self.url, only_look=True)
        runs = store.list_runs(RunQuery(limit=1_000))
        journals = {run.id: store.records(run.number) for run in runs}
        store.close()
        return journals


def end_for_good(worker: Worker) -> None:
    """End a worker that may be stopped, or hang."""
    worker.kill()
    worker.communicate()


def wait_for(worker: Worker, beginning: str, *, of: str = "stderr") -> str:
    """The next line that begins so."""
    stream = worker.stdout if of == "stdout" else worker.stderr
    assert stream is not None
    seen: list[str] = []
    for line in stream:
        seen.append(line)
        if line.startswith(beginning):
            return line
    raise AssertionError(f"the worker ended with {worker.wait()} before it wrote {beginning!r}: {seen}")


def steps_of(journal: Sequence[Record]) -> list[str]:
    return [record.key for record in journal if record.kind == Kind.STEP]


@pytest.fixture(params=["sqlite", "postgres"])
def workers(request: pytest.FixtureRequest, tmp_path: Path, checkout: Path) -> Iterator[Workers]:
    url = f"sqlite:///{tmp_path}/runs.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    with ExitStack() as stack:
        yield Workers(url, tmp_path, checkout, stack)


class Havoc:
    """Kills the worker that has just begun a step, now and then, and starts another."""

    def __init__(self, workers: Workers, fleet: list[Worker], seed: int) -> None:
        self._workers = workers
        self._fleet = fleet
        self._draw = random.Random(seed)
        self._striking = asyncio.Lock()
        self._strikes_at = {*self._draw.sample(range(1, RUNS - RUNS_AT_ONCE), KILLS)}
        """After so many ends."""
        self._ended = 0
        self._recorded: list[tuple[int, set[tuple[str, str]]]] = []
        """What was recorded when the ledger had so many lines."""

    async def note_end(self) -> None:
        """A run has ended; perhaps it is time."""
        self._ended += 1
        if self._ended in self._strikes_at:
            async with self._striking:
                await asyncio.to_thread(self._strike)

    def _strike(self) -> None:
        alive = [worker.pid for worker in self._fleet]
        place = next(
            alive.index(one.process) for one in self._workers.effects()[::-1] if one.process in alive
        )
        self._workers.kill(alive[place])
        journals = self._workers.journals()
        recorded = {(run, key) for run, journal in journals.items() for key in steps_of(journal)}
        self._recorded.append((len(self._workers.effects()), recorded))
        self._fleet[place] = self._workers.start()

    def done_again(self) -> list[Effect]:
        """Effects of steps that had been recorded before."""
        effects = self._workers.effects()
        return [
            effect
            for lines, recorded in self._recorded
            for effect in effects[lines:]
            if (effect.run, effect.call) in recorded
        ]


async def order_all(client: Client, havoc: Havoc) -> dict[int, list[int]]:
    """Start all orders, some at a time; what each came to."""
    found: dict[int, list[int]] = {}
    orders = iter(range(RUNS))

    async def customer() -> None:
        for order in orders:
            run = await client.start(ship(order), id=f"order-{order}")
            found[order] = await run.result()
            await havoc.note_end()

    async with asyncio.timeout(240), asyncio.TaskGroup() as customers:
        for _ in range(RUNS_AT_ONCE):
            customers.create_task(customer())
    return found


@pytest.mark.parametrize("seed", [1])
async def test_workers_that_are_killed_again_and_again_do_each_step_once(workers: Workers, seed: int) -> None:
    fleet = [workers.start() for _ in range(3)]
    havoc = Havoc(workers, fleet, seed)

    async with Client(workers.url) as client:
        found = await order_all(client, havoc)

    assert found == {order: [100 * order + part for part in range(PARTS)] for order in range(RUNS)}
    assert len(workers.killed) == KILLS
    assert havoc.done_again() == []
    assert_each_call_was_done_once(workers)


def assert_each_call_was_done_once(workers: Workers) -> None:
    """By the journals, and by the ledger; but what a kill interrupted is done again, with the same key."""
    journals = workers.journals()
    calls: defaultdict[tuple[str, str], list[Effect]] = defaultdict(list)
    for effect in workers.effects():
        calls[effect.run, effect.call].append(effect)
    assert {len(set(steps_of(journal))) for journal in journals.values()} == {PARTS}
    assert {len(steps_of(journal)) for journal in journals.values()} == {PARTS}
    assert calls.keys() == {(run, key) for run, journal in journals.items() for key in steps_of(journal)}
    keys = Counter(key for effects in calls.values() for key in {effect.key for effect in effects})
    assert len(keys) == len(calls)
    assert set(keys.values()) == {1}
    again = [effect for effects in calls.values() for effect in effects[:-1]]
    assert again, "no kill has interrupted a step"
    assert [effect for effect in again if effect.process not in workers.killed] == []


async def test_a_worker_that_stood_still_past_its_lease_writes_nothing_when_it_wakes(
    workers: Workers,
) -> None:
    stands_still = workers.start(lease_ms=SHORT_LEASE_MS, stands_still=True)
    async with Client(workers.url) as client:
        run = await client.start(sleepy(), id="one")
        _, status = await asyncio.to_thread(os.waitpid, stands_still.pid, os.WUNTRACED)
        heir = workers.start()
        async with asyncio.timeout(60):
            result = await run.result()
        before = workers.journals()

        stands_still.send_signal(signal.SIGCONT)
        said = wait_for(stands_still, "Worker '")
        back = wait_for(stands_still, "Worker ")

    assert os.WIFSTOPPED(status)
    assert result == [heir.pid, 0]
    assert "no longer holds its lease" in said
    assert "Nothing was written." in said
    assert back.startswith(f"Worker {stands_still.pid} on ")
    assert workers.journals() == before
    assert [effect.process for effect in workers.effects()] == [stands_still.pid, heir.pid, heir.pid]


async def test_a_worker_that_is_asked_to_end_finishes_its_step_and_begins_no_other(workers: Workers) -> None:
    first = workers.start()
    async with Client(workers.url) as client:
        run = await client.start(slow(), id="one")
        wait_for(first, "begun", of="stdout")
        first.send_signal(signal.SIGTERM)
        said = wait_for(first, "Stopped.")
        code = first.wait()
        recorded = steps_of(workers.journals()["one"])
        second = workers.start()
        async with asyncio.timeout(60):
            await run.result()

    assert code == 0
    assert said == "Stopped. 1 run not ended: other workers, or the next, go on.\n"
    assert len(recorded) == 1
    assert [effect.process for effect in workers.effects()] == [first.pid, second.pid]


async def test_of_a_command_with_three_workers_one_is_killed_and_another_takes_its_place(
    workers: Workers,
) -> None:
    command = workers.start(processes=3)
    async with Client(workers.url) as client, asyncio.timeout(60):
        at_first = await processes_of(client)
        run = await client.start(slow(), id="one")
        wait_for(command, "begun", of="stdout")
        (victim,) = {effect.process for effect in workers.effects()}
        workers.kill(victim)
        said = wait_for(command, "A worker was ended")
        wait_for(command, "Took up")
        await run.result()
        at_last = await processes_of(client)
    command.send_signal(signal.SIGTERM)
    code = command.wait()

    assert said == "A worker was ended by signal 9; another is started in 0.5 s.\n"
    assert len(at_first) == len(at_last) == 3
    assert at_first - at_last == {victim}
    assert code == 0
    assert [effect.process for effect in workers.effects()].count(victim) == 1


async def test_of_a_command_with_two_workers_one_is_asked_to_end_and_a_fresh_one_takes_its_place(
    workers: Workers,
) -> None:
    command = workers.start(processes=2)
    async with Client(workers.url) as client, asyncio.timeout(60):
        at_first = await processes_of(client)
        run = await client.start(slow(), id="one")
        wait_for(command, "begun", of="stdout")
        (leaver,) = {effect.process for effect in workers.effects()}
        os.kill(leaver, signal.SIGTERM)
        wait_for(command, "Stopped.")
        wait_for(command, "A worker was asked to stop, and has; another takes its place.")
        wait_for(command, "Took up")
        await run.result()
        at_last = await processes_of(client)
    was_alive = command.poll() is None
    command.send_signal(signal.SIGTERM)
    code = command.wait()

    assert was_alive
    assert len(at_first) == len(at_last) == 2
    assert at_first - at_last == {leaver}
    assert code == 0
    assert [effect.process for effect in workers.effects()].count(leaver) == 1


async def test_workers_and_their_command_that_are_all_asked_to_end_finish_what_they_do(
    workers: Workers,
) -> None:
    command = workers.start(processes=2)
    async with Client(workers.url) as client, asyncio.timeout(60):
        processes = await processes_of(client)
        await client.start(slow(), id="one")
        wait_for(command, "begun", of="stdout")
        for process in (*processes, command.pid):  # as systemd does with all of a service
            os.kill(process, signal.SIGTERM)
        code = command.wait()

    assert code == 0
    assert len(steps_of(workers.journals()["one"])) == 1


async def test_workers_end_in_order_when_their_command_is_killed(workers: Workers) -> None:
    command = workers.start(processes=2)
    async with Client(workers.url) as client, asyncio.timeout(60):
        await client.start(slow(), id="one")
        wait_for(command, "begun", of="stdout")
        command.kill()
        for _ in range(2):
            wait_for(command, "Stopped.")

    assert len(steps_of(workers.journals()["one"])) == 1


async def processes_of(client: Client) -> set[int]:
    """Those of the workers that are alive."""
    return {int(worker.name.rpartition(":")[2]) for worker in await client.workers()}
