"""`run`: run a workflow here and wait for its end; with `--each`, once for each line of a file.

The process is the store's worker meanwhile. When another worker has the store,
the run is started there, and this only waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer

from ...blocks.workflow import Workflow
from ...client import Client, Run
from ...errors import RunFailed, RunParked, StoreInUse
from . import each as rows
from .endings import ExitCode, Interrupted, complain, conclude
from .loading import load_workflow
from .options import (
    DEFAULT_STORE,
    DebugOption,
    IdOption,
    InputOption,
    JsonOption,
    ReuseChoice,
    ReuseOption,
    StoreOption,
    TagOption,
    Target,
    TimeoutOption,
    read_tags,
    read_text,
)
from .output import many, print_json, say

_LOOK_EVERY_S = 0.5


def run(
    target: Target,
    input: InputOption = "",
    each: Annotated[
        str | None,
        typer.Option("--each", metavar="FILE", help="One run per line of a JSON lines file (- is stdin)."),
    ] = None,
    id: IdOption = None,
    id_field: Annotated[
        str | None,
        typer.Option("--id-field", metavar="NAME", help="With --each: the field that is the run's id."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="With --each: how many runs at a time.")
    ] = 100,
    timeout: TimeoutOption = None,
    tag: TagOption = None,
    reuse: ReuseOption = ReuseChoice.NEVER,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a workflow and write its result.

    With --id or --each, the same command goes on after Ctrl-C or a crash. With
    --each, a line's run has the id FILE-LINE, or that of --id-field. A bad line is
    told and counted, and the others go on.
    """
    if not debug:
        # What happens to the run that is waited for is said here, once.
        logging.getLogger("perdure").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"timeout": timeout, "reuse": reuse.value}
    if each is None:
        work = _run_one(target, input, id, tag, options, store=store, as_json=as_json)
    else:
        if input or id:
            raise typer.BadParameter("--each brings the inputs and ids: leave --input and --id out.")
        plan = rows.Plan(each, id_field, concurrency, as_json=as_json)
        work = _run_each(target, plan, tag, options, store=store, debug=debug)
    conclude(_stoppable(work), debug=debug)


async def _stoppable(work: Coroutine[Any, Any, ExitCode | None]) -> ExitCode | None:
    """SIGTERM is as good as Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


async def open_worker(stack: AsyncExitStack, store: str) -> Client:
    """An engine; or a client, when the store has as many workers as it can bear."""
    from ...engine import Engine

    try:
        engine = await stack.enter_async_context(Engine(store))
    except StoreInUse:
        client = await stack.enter_async_context(Client(store))
        names = ", ".join(worker.name for worker in await client.workers())
        say(f"This store has all the workers it can bear ({names}), so it is started there; this waits.")
        return client
    if engine.recovered:
        say(f"Goes on with {many(engine.recovered, 'run')} that had not ended.")
    if engine.unknown_workflows:
        names = ", ".join(sorted(engine.unknown_workflows))
        say(f"Left alone: runs of workflows that are not defined here ({names}).")
    return engine


# -- one run ---------------------------------------------------------------------------------------


async def _run_one(
    target: str,
    input: str,
    id: str | None,
    tag: list[str] | None,
    options: dict[str, Any],
    *,
    store: str,
    as_json: bool,
) -> ExitCode | None:
    definition = load_workflow(target)
    call = definition.call_from_json(read_text(input))
    tags = read_tags(tag)
    started: Run[Any] | None = None
    try:
        async with AsyncExitStack() as stack:
            client = await open_worker(stack, store)
            started = await client.start(call, id=id, tags=tags, **options)
            if id is None:
                say(f"run {started.id}")
            await _wait(client, started)
            return await _show_end(started, definition, as_json=as_json)
    except asyncio.CancelledError:
        raise _interrupted(started.id if started else None, known=id is not None) from None


async def _wait(client: Client, started: Run[Any]) -> None:
    """Wait for the run's end, and tell of the attempts that fail meanwhile."""
    end = asyncio.ensure_future(started.result())
    told: set[tuple[str, int]] = set()
    try:
        while not (await asyncio.wait({end}, timeout=_LOOK_EVERY_S))[0]:
            for entry in await client.attempts(started.id):
                number = entry.attempt or 0
                if entry.error and (entry.key, number) not in told:
                    told.add((entry.key, number))
                    say(f"{entry.name}: attempt {number} failed: {entry.error}")
    finally:
        end.cancel()
    end.exception()  # it is asked for again, and raised, by who shows the end


async def _show_end(started: Run[Any], definition: Workflow[Any, Any], *, as_json: bool) -> ExitCode | None:
    try:
        result = definition.encode_result(await started.result())
    except RunFailed as error:
        if not as_json:
            if not error.hint:
                error.hint = f"`perdure show {shlex.quote(started.id)}` shows what led to it."
            raise
        complain(error, debug=False)
        info = await started.info()
        print_json({"id": started.id, "status": info.status, "error": info.error})
        return ExitCode.PARKED if isinstance(error, RunParked) else ExitCode.FAILED
    print_json({"id": started.id, "status": "completed", "result": result} if as_json else result)
    return None


def _interrupted(id: str | None, *, known: bool) -> Interrupted:
    if id is None:
        return Interrupted("Interrupted before the run was started.")
    command = this_command() + ([] if known else ["--id", id])
    return Interrupted(f"Interrupted. {_waiting(1)}.", hint=f"Go on with: {shlex.join(command)}")


def _waiting(count: int) -> str:
    return "1 run is on disk and waits" if count == 1 else f"{count:,} runs are on disk and wait"


def this_command() -> list[str]:
    """What was typed, to be typed again."""
    return ["perdure", *sys.argv[1:]]


# -- one run for each line -------------------------------------------------------------------------


async def _run_each(
    target: str, plan: rows.Plan, tag: list[str] | None, options: dict[str, Any], *, store: str, debug: bool
) -> ExitCode:
    definition = load_workflow(target)
    options["tags"] = read_tags(tag)
    tally = rows.Tally()
    try:
        with plan.lines() as lines:
            async with AsyncExitStack() as stack:
                client = await open_worker(stack, store)
                await rows.run_lines(client, definition, plan, lines, options, tally)
    except asyncio.CancelledError:
        waiting = _waiting(tally.under_way)
        command = shlex.join(this_command())
        raise Interrupted(f"Interrupted. {waiting}; {tally.text()}.", hint=f"Go on with: {command}") from None
    say(f"{tally.text()}.".capitalize())
    if tally.failed or tally.bad:
        return ExitCode.FAILED
    if tally.parked:
        say("")
        say("hint: `perdure doctor` shows what is parked and why; `perdure resume --all` tries it again.")
        return ExitCode.PARKED
    return ExitCode.OK
