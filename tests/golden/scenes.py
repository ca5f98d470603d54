"""Writes the journals of a release: `python -m tests.golden.scenes` makes the folder of the version at hand.

Done once for each release, before it goes out. A folder that is there is never
written again: its journals are what that release wrote.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import perdure
from perdure import Run, RunFailed, UpdateRefused, workflow
from perdure.journals.form import pretty, write_journal
from perdure.journals.reading import find_journals
from perdure.testing import Harness

from . import program

FOLDER = Path(__file__).parent


@workflow(name="changed")
async def changed_before(number: int) -> list[int]:
    """What `changed` was."""
    return [await program.echo(number), len(await program.approval.receive())]


async def _plain(t: Harness) -> None:
    line = program.Line("tea", 2, Decimal("3.50"), program.Colour.GREEN)
    order = program.Order("17", [line], datetime(2027, 1, 1, tzinfo=UTC), frozenset({"a", "b"}))
    await t.run(program.values(order), id="values", tags={"team": "red"})
    await _ended(await t.start(program.failing("pears"), id="failing"), t)
    await _ended(await t.start(program.fails("pears"), id="fails"), t)
    await t.run(program.chance(3), id="chance")
    await t.run(program.branches(3), id="branches")
    await t.run(program.parent(7), id="parent")
    await _ended(await t.start(program.undone("pears"), id="undone"), t)
    await _ended(await t.start(program.parks("the shop"), id="parks"), t)


async def _told(t: Harness) -> None:
    run = await t.start(program.waiting(30), id="waiting")
    await t.advance(days=30)
    await t.advance(120)
    await run.send(program.approval, "ann")
    await run.result()
    still = await t.start(program.waiting(365), id="still-waiting")
    await still.send(program.approval, "early")
    rounds = await t.start(program.rounds(3, []), id="rounds")
    for name in ("ann", "bob", "cy"):
        await t.settle()
        await t.send("rounds", program.approval, name)
    await rounds.result()
    asked = await t.start(program.asked("home"), id="asked")
    await t.settle()
    await asked.update(program.address, "the office")
    with suppress(UpdateRefused):
        await asked.update(program.address, "")
    await asked.send(program.approval, "ann")
    await asked.result()
    handled = await t.start(program.handled(4), id="handled")
    for message in ("ann", "bob"):
        await handled.send(program.parcel, program.Line("tea", 1, Decimal(1)))
        await handled.send(program.approval, message)
    await handled.result()


async def _stopped(t: Harness) -> None:
    cancelled = await t.start(program.cancelled("the order"), id="cancelled")
    await t.settle()
    await cancelled.cancel("not wanted any more")
    await _ended(cancelled, t)
    await _ended(await t.start(program.out_of_time("the order"), id="out-of-time"), t, days=1)
    terminated = await t.start(program.waiting(1), id="terminated")
    await t.settle()
    await terminated.terminate("enough")
    await _ended(terminated, t)


async def _before_the_change(t: Harness) -> None:
    await t.start(changed_before(1), id="changed-before")
    await t.settle()


async def _after_the_change(t: Harness) -> None:
    await t.start(program.changed(1), id="changed-after")
    for name in ("changed-before", "changed-after"):
        await t.settle()
        await t.send(name, program.approval, "ann")
    await t.settle()


async def _ended(run: Run[Any], t: Harness, *, days: int = 0) -> None:
    await t.advance(days=days)
    with suppress(RunFailed):
        await run.result()


async def write(folder: Path) -> None:
    """Run all scenes, and write the journal of each run."""
    new = [value for value in vars(program).values() if isinstance(value, perdure.Workflow)]
    old = [*(each for each in new if each.name != "changed"), changed_before]
    async with Harness(time_flies=True, workflows=new) as harness:
        await _plain(harness)
        _export(harness, folder)
    async with Harness(workflows=old) as harness:
        for scene in (_told, _stopped, _before_the_change):
            await scene(harness)
        harness.workflows = new
        await harness.restart()
        await _after_the_change(harness)
        _export(harness, folder)


def _export(harness: Harness, folder: Path) -> None:
    for journal in find_journals(cast(Any, harness.store)):
        row = journal.run
        name = row.id.replace("/", "_") + (f"~{row.generation}" if row.generation > 1 else "")
        (folder / f"{name}.json").write_bytes(pretty(_without_paths(write_journal(journal))))


def _without_paths(data: bytes) -> bytes:
    """Tracebacks name the files of the machine, and no replay reads them."""
    return json.dumps(_blank(json.loads(data))).encode()


def _blank(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "" if key == "traceback" else _blank(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_blank(item) for item in value]
    return value


def main() -> int:
    folder = FOLDER / perdure.__version__
    if folder.exists():
        sys.stderr.write(f"{folder} is there: what a release wrote is never written again.\n")
        return 1
    folder.mkdir(parents=True)
    asyncio.run(write(folder))
    sys.stderr.write(f"Wrote {len(list(folder.iterdir()))} journals to {folder}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
