"""Hints that cannot be stored."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Annotated

from sqlalchemy.engine import Connection

from perdure import Signal, step, workflow


class Plain:
    def __init__(self, n: int) -> None:
        self.n = n


@dataclass
class Job:
    name: str
    done: Callable[[], None]


@dataclass
class Batch:
    job: Job


hook = Signal[Callable[[str], None]]("hook")  # expect: not-serialisable


@step
async def calls_back(done: Callable[[], None]) -> None: ...  # expect: not-serialisable


@step
async def writes(file: IO[str], text: str) -> None: ...  # expect: not-serialisable


@step
async def sends(connection: "socket.socket") -> None: ...  # expect: not-serialisable


@step
def counts() -> Iterator[int]: ...  # expect: not-serialisable


@step
async def inserts(connection: Annotated[Connection, "open"]) -> None: ...  # expect: not-serialisable


@workflow
async def takes_a_lock(lock: threading.Lock) -> None: ...  # expect: not-serialisable


@workflow
async def takes_a_plain_object(plain: Plain) -> None: ...  # expect: not-serialisable


@workflow
async def takes_a_batch(batch: Batch) -> None: ...  # expect: not-serialisable
