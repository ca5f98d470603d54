"""What comes to a run from outside, as values: a test says them once, and they are sent as often as need be.

`crash_everywhere` sends them in their order, each when the run only waits, and
again, with the same id, when the worker died before the sender heard.
`explore` tries them in every order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from ..blocks.options import Seconds, to_ms
from ..blocks.signal import Signal
from ..blocks.stream import Stream
from ..blocks.update import Update


@dataclass(frozen=True, slots=True)
class Send:
    """Send a signal."""

    signal: Signal[Any]
    value: Any = None

    def __str__(self) -> str:
        return f"send {self.signal.name}"


@dataclass(frozen=True, slots=True)
class Ask:
    """Send an update. What it answers is not looked at; a refusal is an answer too."""

    update: Update[Any, Any]
    value: Any = None

    def __str__(self) -> str:
        return f"ask {self.update.name}"


@dataclass(frozen=True, slots=True)
class Append:
    """Append an event to a stream, for its handlers, and for runs that wait for it by `stream.next`."""

    stream: Stream[Any]
    value: Any
    time: datetime | None = None
    """When it happened; by default when it is appended."""

    def __str__(self) -> str:
        return f"append to {self.stream.name}"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ask the run to stop."""

    reason: str = ""

    def __str__(self) -> str:
        return "cancel"


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass before the next event: seconds, or a timedelta."""

    time: Seconds

    @property
    def ms(self) -> int:
        """How long, in milliseconds."""
        return to_ms(self.time, "Wait") or 0

    def __str__(self) -> str:
        return f"wait {self.ms / 1000:g} s"


Event: TypeAlias = Send | Ask | Append | Cancel | Wait
"""What comes to a run from outside."""
