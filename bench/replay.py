"""How fast a run is brought back from its journal, and whether a long journal costs no more per record.

The core alone, no store: 20,000 results of steps are delivered to a new
`Execution`, decoded and pumped, one after another as live. Two shapes: steps one
by one, and all under one `gather`. Then t(2n) / t(n): 2 is linear.

Limit: a task of plain asyncio that awaits as many futures, each set to a number
that `msgspec` decodes: no keys, no journal, nothing held to any order.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from perdure import Workflow
from perdure.codec import failures
from perdure.codec.json import encode
from perdure.core.commands import RunStep
from perdure.core.execution import Execution
from perdure.core.host import RunFacts
from perdure.core.ready import Ready
from perdure.core.records import Kind, Record

from .measure import Figure, Work, beside
from .work import all_at_once, one_by_one

_CREATED_AT_MS = 1_800_000_000_000
_SEED = bytes(16)
_LINEAR = 2.0


def measure(work: Work) -> Iterator[Figure]:
    yield from _measure_shape(work, "one by one", one_by_one, target=300_000, stretch=600_000)
    yield from _measure_shape(work, "gather", all_at_once, target=None, stretch=None)


def _measure_shape(
    work: Work, shape: str, definition: Workflow[Any, Any], *, target: float | None, stretch: float | None
) -> Iterator[Figure]:
    events = work.size(20_000, quick=500)
    short, long = (asyncio.run(write_journal(definition, steps)) for steps in (events, 2 * events))

    def replay(records: list[Record]) -> float:
        return asyncio.run(_replay_seconds(definition, records))

    pairs: list[tuple[float, float]] = []
    growths: list[float] = []
    for _ in work.repeats():
        pairs.append(beside(lambda: asyncio.run(_plain_seconds(events)), lambda: replay(short)))
        growths.append(replay(long) / replay(short))
    yield Figure(
        f"replay, {shape}", "events/s", [events / spent for spent, _ in pairs],
        "futures of plain asyncio", [events / spent for _, spent in pairs],
        better="more", target=target, stretch=stretch,
    )  # fmt: skip
    yield Figure(
        f"replay, {shape}, t(2n)/t(n)", "×", growths, "linear", [_LINEAR] * len(growths),
        target=1.1, target_of="ratio",
    )  # fmt: skip


async def write_journal(definition: Workflow[Any, Any], steps: int) -> list[Record]:
    """The journal of a run of so many steps, made by answering what it asks for, in order."""
    turn, records = Ready(), list[Record]()
    execution = make_execution(turn)
    data = definition(steps).input()
    with turn:
        execution.begin(definition.body(data), definition.encode_result)
        while execution.outcome is None:
            asked = [command for command in execution.commands if isinstance(command, RunStep)]
            execution.commands.clear()
            for command in asked:
                seq = len(records)
                payload = encode(command.call.args[0], "result")
                records.append(
                    Record(seq, Kind.STEP, command.key, command.digest, _CREATED_AT_MS + seq, payload, 1)
                )
                execution.apply(records[-1])
    return records


def make_execution(turn: Ready) -> Execution:
    """A run that has not begun."""
    facts = RunFacts(1, "run-1", 1, "bench", _SEED, _CREATED_AT_MS, None)
    return Execution(facts, ready=turn, failures=failures)


async def _replay_seconds(definition: Workflow[Any, Any], records: list[Record]) -> float:
    """As `runtime.recovery` does it, from the records on."""
    turn = Ready()
    execution = make_execution(turn)
    data = definition(len(records)).input()
    gc.collect()
    began = time.perf_counter()
    with turn:
        execution.foresee_patches(records)
        execution.begin(definition.body(data), definition.encode_result)
        execution.replay(records)
    spent = time.perf_counter() - began
    if execution.outcome is None:
        raise RuntimeError("the replay did not come to the end of the run")
    return spent


async def _plain_seconds(events: int) -> float:
    """One task awaits so many futures; each turn of the loop gives one of them a decoded number."""
    loop = asyncio.get_running_loop()
    decode = msgspec.json.Decoder(int).decode
    payloads = [encode(number, "result") for number in range(events)]
    waiting: list[asyncio.Future[int]] = []

    async def add_up() -> None:
        for _ in range(events):
            future: asyncio.Future[int] = loop.create_future()
            waiting.append(future)
            await future

    def deliver(payloads: Iterator[bytes]) -> None:
        if waiting:
            waiting.pop().set_result(decode(next(payloads)))
        if not task.done():
            loop.call_soon(deliver, payloads)

    gc.collect()
    began = time.perf_counter()
    task = loop.create_task(add_up())
    loop.call_soon(deliver, iter(payloads))
    await task
    return time.perf_counter() - began
