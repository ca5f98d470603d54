"""How a command ends: exit codes, and what is said of an error."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import IntEnum
from typing import Any, NoReturn

import typer

from ...client import Client
from ...errors import (
    ConflictError,
    DefinitionError,
    NotDecodable,
    NotParked,
    NotSerialisable,
    PerdureError,
    RunClosed,
    RunFailed,
    RunNotFound,
    RunParked,
    StoreError,
    SubscriptionNotFound,
    UpdateRefused,
    WorkflowNotRegistered,
)
from .output import say


class ExitCode(IntEnum):
    """What the exit code of `perdure` tells. Programs rely on it: never change one."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    STORE = 5
    PARKED = 6
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "all is well",
    ExitCode.FAILED: (
        "the run failed (with --each: one of them, or a bad line), a check found faults, a redrive was "
        "stopped, or `lag --check` found a laggard"
    ),
    ExitCode.USAGE: "wrong usage or input",
    ExitCode.NOT_FOUND: "no such run, handler or parked event",
    ExitCode.REFUSED: "refused: the run has ended, or the id is taken",
    ExitCode.STORE: "trouble with the store",
    ExitCode.PARKED: "the run is parked, and waits for a person",
    ExitCode.INTERRUPTED: "interrupted; nothing is lost",
}


class BadInput(PerdureError):
    """What was typed cannot be used."""

    code = "bad_input"


class Refused(PerdureError):
    """The run is not in a state for that."""

    code = "refused"


class Interrupted(PerdureError):
    """Somebody pressed Ctrl-C, or sent SIGTERM."""

    code = "interrupted"


_CODES: tuple[tuple[type[PerdureError], ExitCode], ...] = (
    # The first that fits: subclasses before their bases.
    (Interrupted, ExitCode.INTERRUPTED),
    (RunParked, ExitCode.PARKED),
    (RunFailed, ExitCode.FAILED),
    (RunNotFound, ExitCode.NOT_FOUND),
    (SubscriptionNotFound, ExitCode.NOT_FOUND),
    (NotParked, ExitCode.NOT_FOUND),
    (Refused, ExitCode.REFUSED),
    (RunClosed, ExitCode.REFUSED),
    (ConflictError, ExitCode.REFUSED),
    (UpdateRefused, ExitCode.REFUSED),
    (StoreError, ExitCode.STORE),
    (BadInput, ExitCode.USAGE),
    (DefinitionError, ExitCode.USAGE),
    (NotDecodable, ExitCode.USAGE),
    (NotSerialisable, ExitCode.USAGE),
    (WorkflowNotRegistered, ExitCode.USAGE),
)


def code_of(error: PerdureError) -> ExitCode:
    """The exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def complain(error: PerdureError, *, debug: bool) -> None:
    """Say on stderr what happened and what to do next."""
    if debug:
        say("".join(traceback.format_exception(error)).rstrip())
        say("")
    say(error.what)
    if error.hint:
        say("")
        say(f"hint: {error.hint}")


def conclude(work: Coroutine[Any, Any, ExitCode | None], *, debug: bool) -> NoReturn:
    """Do a command's work, and end the process as it ended."""
    code: ExitCode | None
    try:
        code = asyncio.run(work)
    except PerdureError as error:
        complain(error, debug=debug)
        code = code_of(error)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough; nor may the last flush complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.OK
    except OSError as error:
        if error.filename is None:
            raise
        complain(_bad_file(error), debug=debug)
        code = ExitCode.USAGE
    if code is ExitCode.INTERRUPTED:
        leave(code)
    raise typer.Exit(code or ExitCode.OK)


def _bad_file(error: OSError) -> BadInput:
    """A file or folder that was named, and cannot be read or written."""
    bad = BadInput(
        f"{str(error.filename)!r} cannot be used: {error.strerror}.",
        hint="Name another file or folder, or give this user the right to read and write it.",
    )
    bad.__cause__ = error  # --debug shows it
    return bad


def be_interruptible() -> None:
    """Let Ctrl-C stop work that does not await; asyncio would wait for its next await."""
    with suppress(ValueError):  # only the main thread hears of signals
        signal.signal(signal.SIGINT, signal.default_int_handler)


def leave(code: int) -> NoReturn:
    """End the process now. A step that still runs on a thread is not waited for: it runs again."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def with_client(
    work: Callable[[Client], Awaitable[ExitCode | None]], *, store: str, debug: bool, create: bool = False
) -> NoReturn:
    """Open the store as a client, do the work, and end the process as it ended."""
    conclude(_with_client(work, Client(store, create=create)), debug=debug)


async def _with_client(
    work: Callable[[Client], Awaitable[ExitCode | None]], client: Client
) -> ExitCode | None:
    async with client:
        return await work(client)
