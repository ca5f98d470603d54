"""Parked events as people see them: what is kept of each, and what a redrive came to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ..blocks.event import moment, position_text
from ..codec.failures import describe_failure, failure_lines
from ..core.events import DeadEvent, DeadKind, DeadNote, Deed, EventRow, Standing, SubscriptionStanding
from ..errors import PerdureError

Reason = Literal["failed", "unreadable", "behind", "crashed"]


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that a handler could not handle, and that waits for a person."""

    position: str
    """Where it stands in its stream."""
    key: str
    reason: Reason
    """`failed`, `unreadable`, `crashed` (workers died of it), or `behind` an earlier one of its key."""
    attempts: int
    error: str
    """What the last attempt raised; empty for an event that is parked behind another."""
    parked_at: datetime
    redrives: int
    """How often it was redriven, and failed again."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a person did to a parked event."""

    deed: Literal["edited", "redriven", "discarded"]
    at: datetime
    by: str
    reason: str
    payload: bytes | None
    """Of an edit: what is delivered from then on, as JSON."""


@dataclass(frozen=True, slots=True)
class ParkedDetails:
    """A parked event with all that is known of it."""

    parked: ParkedEvent
    id: str
    source: str
    type: str
    version: int
    time: datetime
    appended_at: datetime
    payload: bytes
    """What will be delivered, as JSON: the original, or what it was edited to last."""
    original: bytes
    """As it was appended."""
    damage: str
    """What is wrong with it, if the disk has changed it."""
    traceback: list[str]
    """Of the last attempt, line by line."""
    notes: list[Note]
    """What people did to it, in order."""


@dataclass(frozen=True, slots=True)
class Redriving:
    """What a redrive has come to."""

    events: list[str]
    """Positions of the events that were handed over; in a dry run, of those that would be."""
    failed: int
    """How many of them have failed again so far. Those that are still on their way are not counted."""
    is_stopped: bool
    """Whether too many failed: the others stay parked."""
    is_dry_run: bool


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """How a subscription stands."""

    status: Literal["active", "suspended", "stopped"]
    since: datetime | None
    """None: it was never otherwise."""
    reason: str
    parked: dict[Reason, int]
    """How many events are parked, by reason."""
    due: int
    """How many wait on disk for their turn: redriven, or behind a slow event of their key."""


def parked_view(dead: DeadEvent) -> ParkedEvent:
    """What people see of a parked event."""
    return ParkedEvent(
        position=position_text(dead.position),
        key=dead.key,
        reason=reason_of(dead.kind),
        attempts=dead.attempts,
        error="" if dead.failure is None else describe_failure(dead.failure),
        parked_at=moment(dead.at_ms),
        redrives=dead.redrives,
    )


def details_view(dead: DeadEvent, event: EventRow, notes: list[DeadNote]) -> ParkedDetails:
    """The same with its event, and what people did to it."""
    edits = [note.payload for note in notes if note.payload is not None]
    return ParkedDetails(
        parked=parked_view(dead),
        id=event.id,
        source=event.source,
        type=event.type,
        version=event.version,
        time=moment(event.time_ms),
        appended_at=moment(event.at_ms),
        payload=edits[-1] if edits else event.payload,
        original=event.payload,
        damage=event.damage,
        traceback=[] if dead.failure is None else failure_lines(dead.failure),
        notes=[note_view(note) for note in notes],
    )


def note_view(note: DeadNote) -> Note:
    """What people see of a note."""
    return Note(_DEEDS[Deed(note.deed)], moment(note.at_ms), note.who, note.reason, note.payload)


def status_view(stands: SubscriptionStanding, counts: dict[int, int]) -> SubscriptionStatus:
    """How a subscription stands."""
    return SubscriptionStatus(
        status=_STANDINGS[Standing(stands.status)],
        since=moment(stands.at_ms) if stands.at_ms else None,
        reason=stands.reason,
        parked={reason_of(kind): count for kind, count in sorted(counts.items()) if kind},
        due=counts.get(0, 0),
    )


def reason_of(kind: int) -> Reason:
    """Why an event is parked, as people read it."""
    return _REASONS[DeadKind(kind)]


def kind_of(reason: str | None) -> int | None:
    """And back. Raises PerdureError for a word that is no reason."""
    if reason is None:
        return None
    for kind, word in _REASONS.items():
        if word == reason:
            return int(kind)
    raise PerdureError(
        f"{reason!r} is no reason for which an event is parked.",
        hint=f"There are: {', '.join(_REASONS.values())}.",
    )


_REASONS: dict[DeadKind, Reason] = {
    DeadKind.FAILED: "failed",
    DeadKind.UNREADABLE: "unreadable",
    DeadKind.BEHIND: "behind",
    DeadKind.CRASHED: "crashed",
}
_DEEDS: dict[Deed, Literal["edited", "redriven", "discarded"]] = {
    Deed.EDITED: "edited",
    Deed.REDRIVEN: "redriven",
    Deed.DISCARDED: "discarded",
}
_STANDINGS: dict[Standing, Literal["active", "suspended", "stopped"]] = {
    Standing.ACTIVE: "active",
    Standing.SUSPENDED: "suspended",
    Standing.STOPPED: "stopped",
}
