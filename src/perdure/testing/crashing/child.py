"""One life of a crash run, as a program: `python -m perdure.testing.crashing.child FOLDER JSON`.

It goes on with what the lives before it left on disk, and dies by SIGKILL at the spot
that it is told; or comes to the end and reports.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ...blocks.signal import Signal
from ...blocks.stream import Stream
from ...blocks.update import Update
from ...blocks.workflow import Workflow, WorkflowCall
from ...core.events import NewEvent
from ...stores.base import Batch, Committed, StartOutcome, Store
from ...stores.opening import open_store
from ..clock import ManualClock
from ..events import Append, Ask, Cancel, Event, Send, Wait
from .judging import all_runs
from .living import Driving
from .process import read_ledger, read_lines, url_in
from .spots import Spot, read_spots
from .turning import watched_turns
from .world import Effect, World


class _Encoded:
    """A signal or update whose value is encoded already."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode_result(self, data: bytes) -> bytes:
        return data


class _EncodedStream:
    """A stream whose events are encoded already."""

    def __init__(self, name: str) -> None:
        self.name = name

    def new_event(self, value: list[Any], drawn: str, now_ms: int, **options: Any) -> NewEvent:
        kind, version, key, payload = value
        return NewEvent(
            options["id"], options["source"], kind, version, key, now_ms, now_ms, "", payload.encode(), True
        )


class ProcessWorld(World):
    """A world in which a death is a real one, and each call is written down when it is made."""

    def __init__(self, store: Store, clock: ManualClock, spots: tuple[Spot, ...], folder: Path) -> None:
        super().__init__(store, clock, spots)
        self._ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def take_up(self, folder: Path, life: int) -> None:
        """Know what the lives before have done."""
        self.life = life - 1
        for run, effect in read_ledger(folder):
            self.known(run, effect)
        for row in all_runs(self.store):
            self.committed(
                Batch(records=self.store.records(row.number)), Committed([StartOutcome("started", row)], [])
            )

    def die(self) -> None:
        """As `kill -9`."""
        os.kill(os.getpid(), signal.SIGKILL)

    def late_ms(self, ttl_ms: int) -> int:
        """None: that the worker before is dead can be seen."""
        return 0

    def sent(self, count: int) -> None:
        self._write("sent", count)

    def called(self, run: int, effect: Effect) -> None:
        super().called(run, effect)
        shown = [repr(value) for value in (*effect.args, *effect.kwargs.values())]
        self._write(
            "call", self.life, len(self.effects), run, effect.run_id, effect.step, effect.key,
            effect.idempotency_key, effect.attempt, shown,
        )  # fmt: skip

    def came_to_its_end(self, effect: Effect) -> None:
        super().came_to_its_end(effect)
        place = next(place for place, one in enumerate(self.effects, 1) if one is effect)
        self._write("done", self.life, place)

    def _write(self, what: str, *told: Any) -> None:
        os.write(self._ledger, json.dumps([what, self.clock.now_ms(), *told]).encode() + b"\n")
        os.fsync(self._ledger)


def _read_event(told: list[Any]) -> Event:
    match told:
        case ["send", name, value]:
            return Send(cast(Signal[Any], _Encoded(name)), value)
        case ["ask", name, value]:
            return Ask(cast(Update[Any, Any], _Encoded(name)), value)
        case ["append", stream, *encoded]:
            return Append(cast(Stream[Any], _EncodedStream(stream)), encoded)
        case ["cancel", reason]:
            return Cancel(reason)
        case ["wait", wait_ms]:
            return Wait(wait_ms / 1000)
        case _:
            raise AssertionError(f"no such event: {told!r}")


def _find_workflow(source: str) -> Workflow[Any, Any]:
    module, _, name = source.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(found, Workflow), f"{source} is no workflow"
    return cast(Workflow[Any, Any], found)


async def live(folder: Path, told: dict[str, Any]) -> None:
    """Come to the end, and report; or to the spot, and die."""
    workflow = _find_workflow(told["workflow"])
    args, kwargs = workflow.arguments.decode_object(told["input"].encode())
    lines = read_lines(folder)
    clock = ManualClock(max([told["start_ms"], *(line[1] for line in lines)]))
    spots = read_spots(told["spot"]) if told["spot"] else ()
    world = ProcessWorld(open_store(url_in(folder)), clock, spots, folder)
    world.take_up(folder, told["life"])
    events = [_read_event(event) for event in told["events"]]
    sent = max((line[2] for line in lines if line[0] == "sent"), default=0)
    with watched_turns():
        engine = await Driving(world, WorkflowCall(workflow, args, kwargs), events, sent=sent).to_the_end()
        await engine.close()
    report = {"passed": [list(spot) for spot in world.passed[0]], "broken": world.broken}
    (folder / "report").write_text(json.dumps(report))


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1]), json.loads(sys.argv[2])))
