"""What the driver shows while it works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(slots=True)
class Tallies:
    """What has been seen so far."""

    days: int = 0
    days_total: int = 0
    effects: int = 0
    effects_total: int = 0
    repeats: int = 0
    kills: int = 0


class Display:
    """Bars for days and effects, and notes above them. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tenth = 0
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description:>8}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[remark]}", style="yellow"),
                TimeElapsedColumn(),
                console=console,
            )
            self._days = self._bars.add_task("days", total=None, remark="")
            self._effects = self._bars.add_task("effects", total=None, remark="")

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def note(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, seen: Tallies) -> None:
        if self._bars:
            self._bars.update(
                self._days, completed=seen.days, total=seen.days_total, remark=f"{seen.kills} kills"
            )
            self._bars.update(
                self._effects,
                completed=seen.effects,
                total=seen.effects_total,
                remark=f"{seen.repeats} repeats",
            )
        elif seen.days_total and seen.days * 10 // seen.days_total > self._tenth:
            self._tenth = seen.days * 10 // seen.days_total
            self.note(
                f"{seen.days} of {seen.days_total} days, {seen.effects:,} effects, {seen.repeats} repeats"
            )
