"""Several workers of one command: processes of their own, looked after by one that runs nothing.

A worker that was killed is started again, each time after a longer pause. One that was
asked to stop has left its runs to the others, and a fresh one takes its place. One that
ends with an error has said why, and would do so again: then all are stopped.

Workers are asked to stop by the end of their standard input, and not by a signal: systemd
sends SIGTERM to each process of a service, and a second one would end a worker in the
middle of its steps. It also ends them in order when the one that looks after them dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from .endings import ExitCode
from .output import say

STOPS_AT_END_OF_INPUT = "PERDURE_STOPS_AT_END_OF_INPUT"
"""In the environment of a worker whose standard input ends when it is to stop."""

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_WAS_ASKED = (ExitCode.OK, ExitCode.INTERRUPTED)
"""How a worker ends that somebody has sent SIGTERM or SIGINT."""


async def keep_fleet(arguments: Sequence[str], count: int, *, store: str) -> ExitCode:
    """Keep `count` workers with these arguments until a signal, or an error of one of them."""
    # Not as an argument, which everybody on the machine can read: it may hold a password.
    fleet = _Fleet(arguments, {**os.environ, "PERDURE_STORE": store, STOPS_AT_END_OF_INPUT: "1"})
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, fleet.stop, number)
    codes = await asyncio.gather(*(fleet.keep_one() for _ in range(count)))
    return ExitCode(max(*codes, ExitCode.INTERRUPTED if fleet.by_key else ExitCode.OK))


@dataclass
class _Fleet:
    arguments: Sequence[str]
    environment: Mapping[str, str]
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    alive: set[asyncio.subprocess.Process] = field(default_factory=set[asyncio.subprocess.Process])
    by_key: bool = False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask all to stop; the second time ends them at once, as it does a single worker."""
        again = self.stopping.is_set()
        self.stopping.set()
        self.by_key = self.by_key or number == signal.SIGINT
        for process in self.alive:
            if again:
                process.kill()
            elif process.stdin is not None:
                process.stdin.close()

    async def keep_one(self) -> int:
        """Keep one worker alive. Gives its exit code when it is to end, or has ended with an error."""
        pause_s = _FIRST_PAUSE_S
        while True:
            code = await self._run_one()
            if self.stopping.is_set():
                return max(code, 0)
            if code in _WAS_ASKED:
                say("A worker was asked to stop, and has; another takes its place.")
                pause_s = _FIRST_PAUSE_S
                continue
            if code >= 0:
                self.stop()
                return code
            say(f"A worker was ended by signal {-code}; another is started in {pause_s:g} s.")
            await self._pause(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _run_one(self) -> int:
        if self.stopping.is_set():
            return 0
        # In a session of its own: Ctrl-C reaches it through this process, and only once.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "perdure", "worker", *self.arguments),
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.alive.add(process)
        try:
            return await process.wait()
        finally:
            self.alive.discard(process)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
