"""`worker`: serve the runs of a store until somebody says stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .endings import ExitCode, conclude, leave
from .loading import load_modules
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption
from .output import many, print_json, say

if TYPE_CHECKING:
    from ...engine import Engine

_STATUS_EVERY_S = 1.0


def worker(
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE…", help="Modules or files that define the workflows.")
    ],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Serve the runs of a store until Ctrl-C or SIGTERM.

    It first takes up what the worker before left; what is not done when it stops
    goes on with the next. A second Ctrl-C ends it at once, which loses nothing either.
    """
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, level=logging.WARNING
    )
    conclude(_serve(modules, store=store, as_json=as_json), debug=debug)


async def _serve(modules: list[str], *, store: str, as_json: bool) -> ExitCode:
    from ...engine import Engine

    definitions = load_modules(modules)
    stop = _Stop()
    stop.listen()
    async with Engine(store) as engine:
        names = ", ".join(sorted(definitions)) or "none"
        say(f"Worker {os.getpid()} on {store}: {many(len(definitions), 'workflow')} ({names}).")
        say(f"Took up {many(engine.recovered, 'run')} that had not ended. Ctrl-C stops it.")
        if engine.unknown_workflows:
            unknown = ", ".join(sorted(engine.unknown_workflows))
            say(f"Runs of workflows that none of these modules defines wait: {unknown}.")
        if as_json:
            print_json(
                {"process": os.getpid(), "recovered": engine.recovered, "workflows": sorted(definitions)}
            )
        await _until_stopped(engine, stop)
    left = await _left(store)
    say(f"Stopped. {many(left, 'run')} not ended: the next worker goes on.")
    # A step on a thread cannot be cancelled; it would hold the process until it returns.
    leave(ExitCode.INTERRUPTED if stop.by_key else ExitCode.OK)


class _Stop:
    """The wish to stop. The second time it comes, the process ends at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.by_key = False

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ask, number)

    def _ask(self, number: int) -> None:
        if self.asked.is_set():
            leave(ExitCode.INTERRUPTED)
        self.by_key = number == signal.SIGINT
        say("Stopping …")
        self.asked.set()


async def _until_stopped(engine: Engine, stop: _Stop) -> None:
    """Serve; on a terminal, one line says how many runs there are."""
    serving = asyncio.ensure_future(engine.serve())
    asked = asyncio.ensure_future(stop.asked.wait())
    said = ""
    try:
        while not stop.asked.is_set():
            done, _ = await asyncio.wait(
                {serving, asked}, timeout=_STATUS_EVERY_S, return_when=asyncio.FIRST_COMPLETED
            )
            if serving in done:
                await serving
            if sys.stderr.isatty():
                counts = await engine.counts()
                text = ", ".join(f"{count:,} {word}" for word, count in counts.items()) or "no runs yet"
                if text != said:
                    said = text
                    print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
    finally:
        asked.cancel()
        serving.cancel()
        if said:
            say("")


async def _left(store: str) -> int:
    from ...client import Client

    async with Client(store) as client:
        return (await client.counts()).get("running", 0)
