"""A pool of processes for CPU-bound steps. One that dies fails its attempt, and no other.

Each process makes one attempt at a time, and is asked by a pipe. They are
spawned, not forked: a fork would copy the parent's locks, connections and the
lock that says which worker is alive. What runs in them is `step_process.py`.

Nothing starts before the first attempt. An attempt that is cancelled or out of
time takes its process with it. Each process leads a group of its own, so that
what a step starts ends with it, and the terminal's Ctrl-C does not reach it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from ..codec.failures import decode_failure, describe_failure
from ..errors import StepError, StepProcessDied
from .attempt import StepInfo
from .definitions import StepDefinition
from .step_process import (
    BEAT,
    BEGUN,
    FAILED,
    HEAD,
    NOT_LOADED,
    OUT_OF_MEMORY,
    Asked,
    CannotBeLoaded,
    Program,
)

_HINTS = {
    signal.SIGKILL: "Something outside killed it; most often it is the system, when memory runs out.",
    signal.SIGTERM: "Something outside asked it to end.",
}
_CRASHED = "Native code crashed; the trace is in the worker's error output."
_LEFT = "Let the step return or raise; it must not end its process."


class Processes:
    """The pool."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit`: how many processes there may be; as many as there are processors."""
        self._places = asyncio.Semaphore(limit or os.cpu_count() or 1)
        self._idle: list[_StepProcess] = []
        self._living: set[_StepProcess] = set()

    async def run(
        self, definition: StepDefinition, data: bytes, info: StepInfo, begun: Callable[[], None] | None = None
    ) -> Any:
        """Make one attempt in a process of the pool; waits for a free one.

        `begun` is called when the step's function is: its time limits count from there,
        and not from when it waited for a process, or that for its imports.
        Raises what the step raised, or StepProcessDied. Cancelled, it kills the process.
        """
        what = f"attempt {info.attempt} of step {definition.name!r} of run {info.run_id!r}"
        function = definition.fn
        asked = Asked(
            function.__module__, function.__qualname__, msgspec.Raw(info.to_json()), msgspec.Raw(data)
        )
        async with self._places:
            process = self._take()
            try:
                kind, payload = await process.ask(msgspec.json.encode(asked), info, begun)
            except EOFError:
                raise await process.autopsy(what) from None
            except BaseException:
                process.kill()
                raise
            if kind in (OUT_OF_MEMORY, NOT_LOADED):
                process.kill()  # who knows what state it is in
            else:
                self._idle.append(process)
        if kind == FAILED:
            raise _as_raised(payload, what)
        if kind == OUT_OF_MEMORY:
            raise _out_of_memory(process.pid, payload, what)
        if kind == NOT_LOADED:
            raise _not_loaded(payload, definition)
        return definition.decode_result(payload)

    def _take(self) -> _StepProcess:
        while self._idle:
            process = self._idle.pop()  # the one used last: its caches are warm
            if process.is_alive:
                return process
        process = _StepProcess()
        self._living.add(process)
        process.ended.add_done_callback(lambda _: self._living.discard(process))
        return process

    async def stop(self) -> None:
        """End all processes."""
        self._idle.clear()
        living = list(self._living)
        for process in living:
            process.kill()
        await asyncio.gather(*(process.ended for process in living))


class _StepProcess:
    """One process, as its parent sees it."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        with its:
            begin = (
                f"import sys; sys.path[:] = {sys.path!r}; "
                f"from perdure.runtime.step_process import serve; serve({its.fileno()})"
            )
            try:
                self._process = subprocess.Popen(  # noqa: S603 (this very Python)
                    [sys.executable, "-c", begin],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[its.fileno()],
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        self.pid = self._process.pid
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        """Its exit code, once it has ended."""
        # The pipe's end would not do: processes that the step forked may hold it open.
        self._watch = os.pidfd_open(self.pid)
        self._loop.add_reader(self._watch, self._has_ended)
        self._pipe = ours
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_alive(self) -> bool:
        # Asked of the system: the loop may not have heard of it yet. Not reaped, see `_has_ended`.
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return not self.ended.done() and os.waitid(os.P_PID, self.pid, look) is None

    async def ask(
        self, asked: bytes, info: StepInfo, begun: Callable[[], None] | None
    ) -> tuple[bytes, bytes]:
        """Have an attempt made. Returns the kind of the answer and the answer; EOFError: it died."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(sock=self._pipe)
                self._say(msgspec.json.encode(_this_program()))
            reader, writer = self._streams
            self._say(asked)
            await writer.drain()
            while True:
                kind, size = HEAD.unpack(await reader.readexactly(HEAD.size))
                payload = await reader.readexactly(size)
                if kind == BEGUN:
                    if begun is not None:
                        begun()
                elif kind == BEAT:
                    info.heartbeat(json.loads(payload))
                else:
                    return kind, payload
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EOFError from error

    def _say(self, message: bytes) -> None:
        assert self._streams is not None
        writer = self._streams[1]
        writer.write(HEAD.pack(b"-", len(message)))
        writer.write(message)

    def kill(self) -> None:
        """End it now, with what it started. Nothing happens to one that has ended."""
        if not self.ended.done():
            # Not reaped yet: until then its number, which is its group's too, belongs to nobody else.
            os.killpg(self.pid, signal.SIGKILL)

    async def autopsy(self, what: str) -> StepProcessDied:
        """The error of the attempt that it was making when its pipe closed."""
        self.kill()  # one that merely closed its pipe; a dying one keeps the exit code that it has
        code = await asyncio.shield(self.ended)
        if code >= 0:
            how, hint = f"ended by itself with exit code {code}", _LEFT
        else:
            died_of = signal.Signals(-code)
            how, hint = f"was ended by {died_of.name}", _HINTS.get(died_of, _CRASHED)
        return StepProcessDied(f"Process {self.pid} {how} while it made {what}.", hint=hint)

    def _has_ended(self) -> None:
        self._loop.remove_reader(self._watch)
        os.close(self._watch)
        self.kill()  # what it started and left behind
        code = self._process.wait()
        if self._streams is None:
            self._pipe.close()
        else:
            self._streams[1].transport.abort()  # who waits for an answer hears of it
        self.ended.set_result(code)


def _this_program() -> Program:
    # The standard library's own account of how this program was started, for its spawned processes.
    from multiprocessing import spawn

    found = spawn.get_preparation_data("step")
    return Program(
        paths=found["sys_path"],
        arguments=found["sys_argv"],
        folder=found["orig_dir"],
        main_name=found.get("init_main_from_name"),
        main_path=found.get("init_main_from_path"),
    )


def _as_raised(payload: bytes, what: str) -> BaseException:
    error = decode_failure(payload)
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        # Raised here as itself it would stop the worker.
        stopped = StepError(f"{type(error).__name__} was raised in {what}.")
        stopped.__cause__ = error
        return stopped
    return error


def _out_of_memory(pid: int, payload: bytes, what: str) -> StepProcessDied:
    died = StepProcessDied(
        f"Process {pid} ran out of memory while it made {what}, and was ended.",
        hint="Give the step less to hold at once.",
    )
    died.__cause__ = decode_failure(payload)
    return died


def _not_loaded(payload: bytes, definition: StepDefinition) -> BaseException:
    error = decode_failure(payload)
    if isinstance(error, CannotBeLoaded):
        return error
    died = StepProcessDied(
        f"A step process could not import module {definition.fn.__module__!r} to find step "
        f"{definition.name!r}: {describe_failure(payload)}.",
        hint="The module is imported anew in the other process: what it does at its top must bear that. "
        'What starts the program belongs under `if __name__ == "__main__":`.',
    )
    died.__cause__ = error
    return died
