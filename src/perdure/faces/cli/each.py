"""One run for each line of a file: `perdure run … --each rows.jsonl`.

The law: a line's run always has the same id, so that the same command, given
again, goes on where it stopped and does nothing twice. A line that cannot be
started, or whose run ends badly, is told by its number and counted; only trouble
with the store stops the others.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...blocks.workflow import Workflow
from ...client import Client
from ...errors import PerdureError, RunFailed, RunParked, StoreError
from .endings import BadInput
from .output import print_json, say

if TYPE_CHECKING:
    from rich.progress import Progress, Task


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    path: str
    """`-` is stdin."""
    id_field: str | None
    concurrency: int
    as_json: bool

    @contextmanager
    def lines(self) -> Generator[Iterable[bytes]]:
        """Open the file. Raises BadInput."""
        if self.path == "-":
            yield sys.stdin.buffer
            return
        path = Path(self.path)
        if not path.exists():
            raise BadInput(f"There is no file {self.path!r}.")
        with path.open("rb") as file:
            yield file

    def count(self) -> int | None:
        """How many lines are to be run; None when that cannot be told."""
        if self.path == "-" or not Path(self.path).is_file():
            return None
        with Path(self.path).open("rb") as file:
            return sum(1 for line in file if line.strip())

    def id_of(self, number: int, line: bytes) -> str:
        """The id of a line's run. Raises BadInput."""
        if self.id_field is None:
            stem = "stdin" if self.path == "-" else Path(self.path).stem
            return f"{stem}-{number}"
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise BadInput(f"it is not JSON: {error}") from error
        value = row.get(self.id_field) if isinstance(row, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise BadInput(f"it has no field {self.id_field!r} with text or a whole number")
        return str(value)


@dataclass(slots=True)
class Tally:
    """How many lines came to what."""

    completed: int = 0
    failed: int = 0
    parked: int = 0
    bad: int = 0
    under_way: int = 0

    @property
    def done(self) -> int:
        return self.completed + self.failed + self.parked + self.bad

    def text(self) -> str:
        """`98 completed, 1 failed, 1 bad line`."""
        parts = [f"{self.completed:,} completed"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.parked:
            parts.append(f"{self.parked:,} parked")
        if self.bad:
            parts.append(f"{self.bad:,} bad line{'s' if self.bad > 1 else ''}")
        return ", ".join(parts)


async def run_lines(
    client: Client,
    definition: Workflow[Any, Any],
    plan: Plan,
    lines: Iterable[bytes],
    options: dict[str, Any],
    tally: Tally,
) -> None:
    """Run the workflow for each line, a bounded number at a time."""
    room = asyncio.Semaphore(plan.concurrency)
    try:
        with _progress(plan, tally) as advance:
            async with asyncio.TaskGroup() as group:
                for number, line in enumerate(lines, start=1):
                    if not line.strip():
                        continue
                    await room.acquire()
                    row = _Row(client, definition, plan, options, tally, number, line.strip())
                    task = group.create_task(row.run())
                    task.add_done_callback(lambda _: (room.release(), advance()))
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


class _Row:
    """One line and its run."""

    def __init__(
        self,
        client: Client,
        definition: Workflow[Any, Any],
        plan: Plan,
        options: dict[str, Any],
        tally: Tally,
        number: int,
        line: bytes,
    ) -> None:
        self._client = client
        self._definition = definition
        self._plan = plan
        self._options = options
        self._tally = tally
        self._number = number
        self._line = line

    async def run(self) -> None:
        id: str | None = None
        try:
            id = self._plan.id_of(self._number, self._line)
            call = self._definition.call_from_json(self._line)
            started = await self._client.start(call, id=id, **self._options)
        except StoreError:
            raise
        except PerdureError as error:
            self._tally.bad += 1
            self._tell(id, "bad line", error)
            return
        self._tally.under_way += 1
        try:
            value = await started.result()
        except RunFailed as error:
            parked = isinstance(error, RunParked)
            if parked:
                self._tally.parked += 1
            else:
                self._tally.failed += 1
            self._tell(id, "parked" if parked else "failed", error)
        else:
            self._tally.completed += 1
            if self._plan.as_json:
                result = self._definition.encode_result(value)
                print_json({"line": self._number, "id": id, "status": "completed", "result": result})
        self._tally.under_way -= 1

    def _tell(self, id: str | None, status: str, error: PerdureError) -> None:
        say(f"line {self._number}: {error.what}")
        if self._plan.as_json:
            print_json({"line": self._number, "id": id, "status": status, "error": error.what})


@contextmanager
def _progress(plan: Plan, tally: Tally) -> Generator[Callable[[], None]]:
    """A bar on stderr while a person looks; gives what to call when a line is done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    bar = _bar()
    with bar:
        task = bar.add_task("", total=plan.count(), bad="")

        def advance() -> None:
            bad = tally.failed + tally.parked + tally.bad
            bar.update(task, completed=tally.done, bad=f"{bad:,} not well" if bad else "")

        yield advance


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s")

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True),
        TextColumn("[red]{task.fields[bad]}"),
    )
    return Progress(*columns, console=Console(stderr=True))
