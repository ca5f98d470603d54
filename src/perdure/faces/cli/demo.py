"""`demo`: a program is killed while it works, started again, and has lost and doubled nothing.

The program is written to a folder, so that it can be read and tried afterwards.
It runs in a process of its own, since it is to be killed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from ...client import Client
from .endings import ExitCode, with_client
from .options import DebugOption, JsonOption
from .output import print_json, say

ORDERS = 12
EFFECTS = 3 * ORDERS
KILL_AFTER = EFFECTS // 2

PROGRAM = '''\
"""Orders: charge the card, reserve the goods, send the parcel."""

import asyncio
import sqlite3

from perdure import step, step_info, workflow


def write_effect(what: str, order: str) -> None:
    """Stands for the world: a ledger that knows each effect by its key, as a payment provider does."""
    with sqlite3.connect("ledger.db", timeout=30) as ledger:
        ledger.execute("CREATE TABLE IF NOT EXISTS effect (key PRIMARY KEY, what, of, asked)")
        ledger.execute(
            "INSERT INTO effect VALUES (?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET asked = asked + 1",
            (step_info().idempotency_key, what, order),
        )
    print(what, order, flush=True)


@step
async def charge(order: str) -> str:
    await asyncio.sleep(0.05)
    write_effect("charged", order)
    return f"receipt of {order}"


@step
async def reserve(order: str) -> None:
    await asyncio.sleep(0.05)
    write_effect("reserved", order)


@step
async def send(order: str) -> None:
    await asyncio.sleep(0.05)
    write_effect("sent", order)


@workflow
async def checkout(order: str) -> str:
    receipt = await charge(order)
    await reserve(order)
    await asyncio.sleep(0.1)          # could as well be a month
    await send(order)
    return receipt
'''


class Ledger(NamedTuple):
    """What the program did to the world."""

    effects: int
    doubled: int
    """Effects of one kind on one order that are there twice."""
    asked_again: int
    """Effects that were asked for a second time, and recognised by their key."""


def demo(
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="PATH", help="Where to put it; else a new folder in /tmp."),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """See a program killed with SIGKILL, and go on.

    A few seconds, in a folder of its own, which stays.
    """
    place = Path(tempfile.mkdtemp(prefix="perdure-demo-")) if folder is None else folder.resolve()
    place.mkdir(parents=True, exist_ok=True)
    store = f"sqlite:///{place}/perdure.db"
    _write_files(place)
    say(f"In {place}: shop.py, a workflow of three steps, and {ORDERS} orders for it.")
    say("1. It is started, and killed with SIGKILL in the middle.")
    seen = _run_and_kill(place)
    before = _read_ledger(place)
    say(f"   Killed after {seen} effects; {before.effects} of {EFFECTS} are in the ledger.")
    say("2. The same command, again.")
    code = _run_to_end(place)
    after = _read_ledger(place)

    async def work(client: Client) -> ExitCode:
        counts = await client.counts()
        completed = counts.get("completed", 0)
        is_well = code == 0 and after.effects == EFFECTS and not after.doubled and completed == ORDERS
        if as_json:
            print_json({"ok": is_well, "folder": str(place), "runs": counts, **after._asdict()})
        _tell_end(place, before, after, completed, is_well=is_well)
        return ExitCode.OK if is_well else ExitCode.FAILED

    with_client(work, store=store, debug=debug)


def _tell_end(place: Path, before: Ledger, after: Ledger, completed: int, *, is_well: bool) -> None:
    say(f"   {completed} of {ORDERS} runs completed; {after.effects} of {EFFECTS} effects done.")
    if after.asked_again:
        say(
            f"   Steps that ran again, since their result was not on disk yet: {after.asked_again}. "
            "The ledger knew them by their idempotency keys."
        )
    say("Nothing was lost and nothing doubled." if is_well else "THIS IS NOT WELL: please tell us.")
    store = shlex.quote(str(place / "perdure.db"))
    say("")
    say("Look at it:")
    say(f"  perdure list --store {store}")
    say(f"  perdure show orders-1 --store {store}")
    say(f"  {shlex.join(['cat', str(place / 'shop.py')])}")


def _write_files(place: Path) -> None:
    if (place / "perdure.db").exists():
        raise typer.BadParameter(f"{place} has a perdure.db already: name a new folder.")
    (place / "shop.py").write_text(PROGRAM, encoding="utf-8")
    lines = (f'"order {number}"\n' for number in range(1, ORDERS + 1))
    (place / "orders.jsonl").write_text("".join(lines), encoding="utf-8")


def _start(place: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "perdure", "run", "shop:checkout", "--each", "orders.jsonl"]
    # The store stands beside the program, whatever the caller's environment says; so does our own source.
    source = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PERDURE_STORE": "sqlite:///perdure.db", "PYTHONPATH": path}
    return subprocess.Popen(  # noqa: S603 - our own command, with fixed arguments
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _run_and_kill(place: Path) -> int:
    with _start(place) as process:
        seen = 0
        for _ in _lines_of(process):
            seen += 1
            if seen == KILL_AFTER:
                process.kill()
                break
    return seen


def _run_to_end(place: Path) -> int:
    with _start(place) as process:
        for _ in _lines_of(process):
            pass
    return process.returncode


def _lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


def _read_ledger(place: Path) -> Ledger:
    import sqlite3

    with sqlite3.connect(place / "ledger.db") as ledger:
        effects, asked = ledger.execute("SELECT count(*), coalesce(sum(asked > 1), 0) FROM effect").fetchone()
        (pairs,) = ledger.execute("SELECT count(*) FROM (SELECT DISTINCT what, of FROM effect)").fetchone()
    ledger.close()
    return Ledger(effects, effects - pairs, asked)
