"""`worker`: serve the runs of a store until somebody says stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import LeaseLost
from .endings import ExitCode, conclude, leave
from .fleet import STOPS_AT_END_OF_INPUT, keep_fleet
from .loading import load_modules
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption
from .output import many, print_json, say

if TYPE_CHECKING:
    from ...engine import Engine

_STATUS_EVERY_S = 1.0
_LAST_S = 5.0
"""For the end, after the grace of steps: what is done is written, and the lease is given back."""
_CLEAR = "\r\x1b[2K"


def worker(
    modules: Annotated[
        list[str],
        typer.Argument(metavar="MODULE", help="Modules or files that define workflows and handlers."),
    ],
    processes: Annotated[
        int, typer.Option(min=1, help="So many worker processes; one that dies is started again.")
    ] = 1,
    capacity: Annotated[
        int | None,
        typer.Option(min=1, help="Steps under way with which a worker takes up no more runs; else 10,000."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG", help="Also run any run's steps that ask for it, @step(worker=TAG); repeatable."
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that steps under way get when it is to stop.")
    ] = 10.0,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Serve runs and events of a store until Ctrl-C or SIGTERM.

    It takes up what no living worker has in hand. To stop, it begins nothing more,
    gives steps under way some seconds, and leaves its runs to the others, or to the
    next. A second Ctrl-C ends it at once, which loses nothing either.
    """
    clear = _CLEAR if sys.stderr.isatty() else ""  # of the line that says how many runs there are
    logging.basicConfig(
        format=f"{clear}%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, level=logging.WARNING
    )
    if processes > 1:
        options = [f"--grace={grace}", *["--json"] * as_json, *["--debug"] * debug]
        if capacity is not None:
            options.append(f"--capacity={capacity}")
        options += [f"--tag={each}" for each in tag or ()]
        conclude(keep_fleet([*modules, *options], processes, store=store), debug=debug)
    else:
        serving = _serve(
            modules, store=store, capacity=capacity, tags=tag or [], grace_s=grace, as_json=as_json
        )
        conclude(serving, debug=debug)


async def _serve(
    modules: list[str], *, store: str, capacity: int | None, tags: list[str], grace_s: float, as_json: bool
) -> ExitCode:
    from ...engine import CAPACITY, Engine

    definitions = load_modules(modules)
    stop = _Stop(grace_s + _LAST_S)
    stop.listen()
    while not stop.asked.is_set():
        async with Engine(store, capacity=capacity or CAPACITY, tags=tags) as engine:
            _tell(engine, sorted(definitions), tags, as_json=as_json)
            try:
                await _until_stopped(engine, stop)
            except LeaseLost as error:  # it was paused for too long: it comes back as a new worker
                say(f"{error}\nOpening the store again.")
                continue
            await engine.drain(grace_s)
    left = await _left(store)
    say(f"Stopped. {many(left, 'run')} not ended: other workers, or the next, go on.")
    # A step on a thread cannot be cancelled; it would hold the process until it returns.
    leave(ExitCode.INTERRUPTED if stop.by_key else ExitCode.OK)


def _tell(engine: Engine, names: list[str], tags: list[str], *, as_json: bool) -> None:
    """Say who serves what, and what it does not."""
    known = ", ".join(names) or "none"
    say(f"Worker {os.getpid()} on {engine.url}: {many(len(names), 'workflow')} ({known}).")
    handlers = engine.handlers
    if handlers:
        say(f"It handles the events of {many(len(handlers), 'subscription')}: {', '.join(handlers)}.")
    if tags:
        say(f"It also runs the steps of any run that ask for a worker with: {', '.join(tags)}.")
    say(f"Took up {many(engine.recovered, 'run')} that had not ended. Ctrl-C stops it.")
    if engine.unknown_workflows:
        unknown = ", ".join(sorted(engine.unknown_workflows))
        say(f"Runs of workflows that none of these modules defines wait: {unknown}.")
    if as_json:
        known = {"workflows": names, "handlers": handlers, "tags": tags}
        print_json({"process": os.getpid(), "recovered": engine.recovered, **known})


class _Stop:
    """The wish to stop. A second signal ends the process at once, a silent store after a while."""

    def __init__(self, within_s: float) -> None:
        """`within_s`: how long the end may take."""
        self._within_s = within_s
        self.asked = asyncio.Event()
        self.by_key = False
        self._had_signal = False

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._hear, number)
        if os.environ.get(STOPS_AT_END_OF_INPUT):
            loop.add_reader(0, self._read)

    def _hear(self, number: int) -> None:
        if self._had_signal:
            leave(ExitCode.INTERRUPTED)
        self._had_signal = True
        self.by_key = number == signal.SIGINT
        self._ask()

    def _read(self) -> None:
        if not os.read(0, 1):
            asyncio.get_running_loop().remove_reader(0)
            self._ask()

    def _ask(self) -> None:
        if not self.asked.is_set():
            say("Stopping: what is under way gets some seconds. Once more ends it at once.")
            self.asked.set()
            # A thread's: the loop may be waiting for the store itself.
            limit = threading.Timer(self._within_s, self._give_up)
            limit.daemon = True
            limit.start()

    def _give_up(self) -> None:
        say(
            f"The store did not take the last of it within {self._within_s:g} s. Stopped all the same: "
            "what is not written is done again, by other workers or the next."
        )
        leave(ExitCode.STORE)


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
                none = "" if engine.handlers else "no runs yet"
                text = ", ".join(f"{count:,} {word}" for word, count in counts.items()) or none
                if text != said:
                    said = text
                    print(f"{_CLEAR}{text}", end="", file=sys.stderr, flush=True)
    finally:
        asked.cancel()
        serving.cancel()
        if said:
            say("")


async def _left(store: str) -> int:
    from ...client import Client

    async with Client(store) as client:
        return (await client.counts()).get("running", 0)
