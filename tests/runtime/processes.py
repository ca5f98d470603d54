"""Steps for processes, and what the tests of them share."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure import Retry, StepInfo, step, step_info

ONCE = Retry(attempts=1)
AT_ONCE = Retry(attempts=3, delay=0)


@dataclass
class Picture:
    name: str
    pixels: bytes


class Blurred(Exception):
    def __init__(self, name: str, radius: int) -> None:
        super().__init__(f"{name} is blurred by {radius}")
        self.name = name
        self.radius = radius


@step(on="process")
def invert(picture: Picture) -> Picture:
    return Picture(f"{picture.name} by {os.getpid()}", bytes(255 - pixel for pixel in picture.pixels))


@step(on="process", retry=ONCE)
def look_at(name: str) -> None:
    raise Blurred(name, 7)


@step(on="process")
def process_id() -> int:
    return os.getpid()


@step(on="process", retry=ONCE)
def die(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "signal":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            with contextlib.suppress(OSError):  # the trace is not of interest here
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            ctypes.string_at(0)
        case "memory":
            raise MemoryError
        case "leave":
            raise SystemExit(4)
        case _:
            raise KeyboardInterrupt


@step(on="process", retry=AT_ONCE)
def tell_about_itself(fail_first: bool) -> dict[str, Any]:
    info = step_info()
    if info.attempt == 1 and fail_first:
        info.heartbeat({"done": 17})
        raise ValueError("not at first")
    return {
        "run": info.run_id,
        "attempt": info.attempt,
        "key": info.idempotency_key,
        "last": info.last_details,
    }


@step(on="process", retry=AT_ONCE)
def wait_for(gate: str) -> int:
    """Says its process id, and returns once somebody has opened the gate (a named pipe)."""
    step_info().heartbeat(os.getpid())
    Path(gate).read_bytes()
    return step_info().attempt


@step(on="process", timeout=30, retry=ONCE)
def wait_for_thirty_seconds(gate: str) -> None:
    step_info().heartbeat(os.getpid())
    Path(gate).read_bytes()


@step(on="process", retry=ONCE)
def return_what_is_no_json() -> Any:
    return object()


class Gate:
    """Holds up steps in other processes until it is opened."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)

    def open(self) -> None:
        """Let one step through; it must have come."""
        Path(self.path).write_bytes(b"")


class Listener:
    """What the pool tells of an attempt."""

    def __init__(self, step_name: str = "any") -> None:
        self.said: list[bytes | None] = []
        self._info = StepInfo(
            self,
            run_id="run-1",
            workflow="any",
            step=step_name,
            key="0/0/any",
            attempt=1,
            seed=bytes(16),
            last_details=None,
        )

    def info(self) -> StepInfo:
        return self._info

    def beat(self, details: bytes | None) -> None:
        self.said.append(details)


def has_ended(process: int, *, within_s: float = 20) -> bool:
    """Whether a process ends in that time. It need not be a child of this one."""
    try:
        watch = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], within_s)[0])
    finally:
        os.close(watch)
