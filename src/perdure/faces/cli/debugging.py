"""`debug`: a run's code in pdb, with the values that were recorded."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ...client import Client
from .endings import BadInput, ExitCode, be_interruptible, conclude, leave
from .loading import load_modules
from .options import DEFAULT_STORE, DebugOption, StoreOption

if TYPE_CHECKING:
    from ...journals.form import Journal


def debug(
    run: Annotated[
        str, typer.Argument(metavar="ID|FILE", help="The run's id, or a file that `export` wrote.")
    ],
    module: Annotated[
        list[str], typer.Option("--module", "-m", help="The module or file that defines its workflow.")
    ],
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="SEQ|NAME",
            help="Stop when this record has been delivered: its number, key, or the name of its step or "
            "signal. Else at the workflow's first line.",
        ),
    ] = None,
    generation: Annotated[
        int | None, typer.Option("--generation", "-g", min=1, help="An earlier generation of the id.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    debug: DebugOption = False,
) -> None:
    """Replay a run under pdb: nothing runs, nothing is written.

    At the end of the journal pdb stands where the run waits. Besides pdb's own commands,
    `tasks` lists where each task of the run waits, and `task PATH` goes there.
    """
    conclude(_debug(run, module, at=at, generation=generation, store=store), debug=debug)


async def _debug(
    run: str, modules: list[str], *, at: str | None, generation: int | None, store: str
) -> ExitCode:
    from ...journals.debugger import Debugger
    from ...journals.replayer import Replayer

    journal = await _read(run, generation=generation, store=store)
    definitions = load_modules(modules)
    definition = definitions.get(journal.run.workflow)
    if definition is None:
        raise BadInput(
            f"Run {journal.run.id!r} is of workflow {journal.run.workflow!r}, and {', '.join(modules)} "
            f"defines {', '.join(sorted(definitions)) or 'no workflow'}.",
        )
    stop_at = None if at is None else journal.find(at)
    if at is not None and stop_at is None:
        raise BadInput(
            f"Run {journal.run.id!r} has no record {at!r}: it has {len(journal.records)} records.",
            hint=f"`perdure show {journal.run.id}` lists them. Without --at it stops at the first line.",
        )
    replayer = Replayer(journal.run, journal.records, definition, redacted=bool(journal.redacted))
    be_interruptible()
    Debugger(replayer, at=stop_at, leave=_leave).replay()
    replayer.close()
    return ExitCode.OK


async def _read(run: str, *, generation: int | None, store: str) -> Journal:
    from ...journals.reading import find_journal, load_journal

    if run.endswith(".json"):
        return await asyncio.to_thread(load_journal, Path(run))
    async with Client(store, create=False) as client:
        return await client.door.read(partial(find_journal, run_id=run, generation=generation))


def _leave() -> NoReturn:
    leave(ExitCode.OK)
