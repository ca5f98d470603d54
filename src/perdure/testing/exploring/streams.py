"""The event streams of a world: what its runs append and wait for, in memory.

It does what a store does for `stream.append` and `stream.next` in a workflow. An event that a run
waits for is in flight when it has been appended: everything else may come before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...blocks.awaiting import next_event_step
from ...blocks.step import Step, step_info
from ...blocks.stream import APPEND_STEP, Sketch, events_of, placed_or_refuse
from ...core.events import Append, Clash, EventRow, NewEvent, Placed
from ...stores.correlation import Wanted, event_as_text, fits

Send = Callable[[str, str, str, bytes], None]
"""Has a run, by its id, hear of an event: its name for people, the signal, and what that carries."""


@dataclass(slots=True)
class _Waiting:
    """What one run has been given of the events that fit, and how many it still wants."""

    wanted: Wanted
    after: int = 0
    count: int = 0


class Streams:
    """All streams of one world."""

    def __init__(self, now_ms: Callable[[], int], send: Send) -> None:
        self._now_ms = now_ms
        self._send = send
        self._events: dict[str, list[EventRow]] = {}
        self._waiting: dict[tuple[str, Wanted], _Waiting] = {}

    def in_place_of(self, step: Step[..., Any]) -> Callable[..., Any] | None:
        """What runs in place of a step that a store would do; None for any other."""
        if step is next_event_step:
            return self._next
        return self._append if step.source == APPEND_STEP else None

    def put(self, append: Append) -> list[Placed] | Clash:
        """Append all, or say which event clashes; those that are waited for are on their way then."""
        events = self._events.setdefault(append.stream, [])
        known = {(row.source, row.id): row for row in events}
        placed: list[Placed] = []
        fresh: list[EventRow] = []
        for place, event in enumerate(append.events):
            twin = known.get((event.source, event.id))
            row = EventRow(len(events) + len(fresh) + 1, *event[:9])
            if twin is None:
                known[event.source, event.id] = row
                fresh.append(row)
            elif _content(twin) != _content(event):
                return Clash(place, twin.position)
            placed.append(Placed((twin or row).position, twin is not None))
        events += fresh
        for row in fresh:
            self._tell(append.stream, row)
        return placed

    def _tell(self, stream: str, event: EventRow) -> None:
        for (run_id, wanted), waiting in self._waiting.items():
            if waiting.count and wanted.stream == stream and fits(event, wanted):
                waiting.count -= 1
                waiting.after = event.position
                self._send(run_id, f"event {event.type}", wanted.signal, event_as_text(event).encode())

    def _append(self, stream: str, sketches: list[Sketch]) -> list[Placed]:
        append = Append(stream, events_of(sketches, step_info(), self._now_ms()))
        return placed_or_refuse(append, self.put(append))

    def _next(self, wait: Wanted) -> tuple[str | None, bool]:
        waiting = self._waiting.setdefault((step_info().run_id, wait), _Waiting(wait))
        for event in self._events.get(wait.stream, []):
            if event.position > waiting.after and fits(event, wait):
                waiting.after = event.position
                return event_as_text(event), False
        waiting.count += 1
        return None, False


def _content(event: NewEvent | EventRow) -> tuple[str, int, str, bytes]:
    return event.type, event.version, event.key, event.payload
