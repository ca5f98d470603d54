"""What runs in the processes of `on="process"` steps: load the step, run an attempt, answer.

The law: nothing of the parent is copied in but what it sends as JSON, and the
process never outlives its parent: when the pipe closes it ends at once, with
all that it started. Called by `processes.py`, which starts it as a program.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from queue import SimpleQueue
from typing import Any

import msgspec

from ..codec.arguments import Arguments
from ..codec.failures import encode_failure
from ..codec.json import encode
from ..errors import DefinitionError, NonRetryable
from .attempt import Attempting, StepInfo, current_attempt

HEAD = struct.Struct(">cQ")
"""Before each message: its kind and how many bytes follow."""

BEGUN, BEAT, RESULT, FAILED, OUT_OF_MEMORY, NOT_LOADED = b"b", b"h", b"r", b"f", b"m", b"n"
"""What a process says of an attempt: the first two on the way, one of the others at its end."""


class Program(msgspec.Struct):
    """The first message: what the parent's program is."""

    paths: list[str]
    arguments: list[str]
    folder: str | None
    main_name: str | None
    """Of a program that was started as `python -m …`."""
    main_path: str | None


class Asked(msgspec.Struct):
    """One attempt to make."""

    module: str
    function: str
    """Qualified name."""
    info: msgspec.Raw
    data: msgspec.Raw
    """The arguments, encoded."""


class CannotBeLoaded(DefinitionError, NonRetryable):
    """A step process cannot get at the step's function; to try again would not help."""


class Link:
    """The process's end of the pipe."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()

    def say(self, kind: bytes, payload: bytes) -> None:
        """Send a message; from any thread."""
        with self._lock:
            self._end.sendall(HEAD.pack(kind, len(payload)))
            self._end.sendall(payload)

    def listen(self, heard: Callable[[bytes], None]) -> None:
        """Hand on what the parent sends, and end the process when there is no parent any more."""
        try:
            with self._end.makefile("rb") as stream:
                while head := stream.read(HEAD.size):
                    _, size = HEAD.unpack(head)
                    heard(stream.read(size))
        finally:
            # Also while a step runs, and with the processes that it started: nobody wants the result.
            os.killpg(0, signal.SIGKILL)


class _Attempt(Attempting):
    """The attempt that this process makes."""

    def __init__(self, link: Link, info: bytes) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._over = False
        self._info = StepInfo.from_json(info, self)

    def info(self) -> StepInfo:
        return self._info

    def beat(self, details: bytes | None) -> None:
        with self._lock:
            if not self._over:  # else a thread that the step left behind
                self._link.say(BEAT, details or b"null")

    def end(self) -> None:
        """What beats from now on is not of this process's attempt any more."""
        with self._lock:
            self._over = True


def serve(end: int) -> None:
    """Make one attempt after the other until the parent is gone. `end`: the pipe's file descriptor."""
    # The terminal's Ctrl-C is for the parent, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    link = Link(socket.socket(fileno=end))
    heard: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=link.listen, args=(heard.put,), daemon=True).start()
    program = msgspec.json.decode(heard.get(), type=Program)
    _prepare(sys_path=program.paths, sys_argv=program.arguments, orig_dir=program.folder)
    while True:
        asked = msgspec.json.decode(heard.get(), type=Asked)
        kind, payload = _make_attempt(link, program, asked)
        with suppress(Exception):  # they may be closed
            sys.stdout.flush()
            sys.stderr.flush()
        link.say(kind, payload)


def _make_attempt(link: Link, program: Program, asked: Asked) -> tuple[bytes, bytes]:
    try:
        _load_main(program, asked.module)
        function, arguments = _find(asked.module, asked.function)
    except BaseException as error:  # also SystemExit: a program without a guard may end so
        return NOT_LOADED, encode_failure(error)
    attempt = _Attempt(link, bytes(asked.info))
    token = current_attempt.set(attempt)
    link.say(BEGUN, b"")
    try:
        args, kwargs = arguments.decode(bytes(asked.data))
        return RESULT, encode(function(*args, **kwargs), lambda: f"result of {arguments.name}()")
    except MemoryError as error:
        return OUT_OF_MEMORY, encode_failure(error)
    except BaseException as error:  # also SystemExit: a step must not end the worker
        return FAILED, encode_failure(error)
    finally:
        attempt.end()
        current_attempt.reset(token)


# -- finding the step ----------------------------------------------------------------------------


def _prepare(**program: Any) -> None:
    from multiprocessing import spawn

    # The standard library's own way of making a process look like its parent.
    spawn.prepare({name: value for name, value in program.items() if value is not None})


_loading = threading.Event()
_loaded = threading.Event()


def _load_main(program: Program, module: str) -> None:
    """Import the parent's program under another name than `__main__`, if the step is defined there."""
    if module != "__main__" or _loaded.is_set():
        return
    _loading.set()
    _prepare(
        orig_dir=program.folder, init_main_from_name=program.main_name, init_main_from_path=program.main_path
    )
    _loading.clear()
    _loaded.set()


def refuse_while_loading() -> None:
    """Called by what a program does only once. Raises where a step process imports the program."""
    if _loading.is_set():
        raise CannotBeLoaded(
            'A step process imports the program to find a step with on="process", and the program '
            "opened an engine there.",
            hint='Put what starts the program under `if __name__ == "__main__":`.',
        )


@cache
def _find(module: str, qualified_name: str) -> tuple[Callable[..., Any], Arguments]:
    found: Any = importlib.import_module(module)
    for name in qualified_name.split("."):
        found = getattr(found, name, None)
    # Whatever stands there wraps the function: the step itself, and what may decorate it.
    step = found
    while step is not None and getattr(step, "place", None) != "process":
        step = getattr(step, "__wrapped__", None)
    function = found if step is None else step.fn
    if not callable(function):
        raise CannotBeLoaded(
            f"A step process finds no function {qualified_name!r} in module {module!r}.",
            hint="Define the step at the top of a module that can be imported (of a package's "
            "__main__.py nothing can).",
        )
    return function, Arguments(function, name=getattr(step, "name", ""))
