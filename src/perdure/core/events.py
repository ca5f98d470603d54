"""Events as they are kept: what a stream is made of. Values only.

An event has the attributes of CloudEvents 1.0 (https://github.com/cloudevents/spec):
`id` and `source` name it, `type` says what it is, `time` when it happened. Times are
Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple


class NewEvent(NamedTuple):
    """An event on its way into a stream."""

    id: str
    """Names it within its source."""
    source: str
    type: str
    version: int
    """Of the type's schema; from 1."""
    key: str
    """Events of a key are handled one after another. Empty: it has none."""
    time_ms: int
    """When it happened."""
    at_ms: int
    """When it was appended."""
    trace: str
    """The W3C `traceparent`; empty without one."""
    payload: bytes
    is_resent: bool
    """Whether the same id may have come before: one that was just drawn cannot."""


class Append(NamedTuple):
    """Events for a stream, all or none of them."""

    stream: str
    events: Sequence[NewEvent]


class Placed(NamedTuple):
    """Where an event stands in its stream."""

    position: int
    """From 1; grows along the stream."""
    is_duplicate: bool
    """Whether it was there already, with the same content; nothing was written then."""


class Clash(NamedTuple):
    """An append that was refused: the id of an event stands for another one."""

    place: int
    """Which of the append's events, from 0."""
    position: int
    """Where the other one stands."""


class EventRow(NamedTuple):
    """An event in its stream."""

    position: int
    id: str
    source: str
    type: str
    version: int
    key: str
    time_ms: int
    at_ms: int
    trace: str
    payload: bytes
    damage: str = ""
    """What is wrong with it, if the disk has changed it: then it has a position, and nothing else."""


class EventPage(NamedTuple):
    """Some events of a stream, in order."""

    events: list[EventRow]
    after: int
    """Ask for those after this position next; none will come any more at it or below."""
    is_held_back: bool = False
    """Whether there are more, which are not given yet: one that is being appended may come before them."""


class DeadKind(IntEnum):
    """Why an event is parked."""

    FAILED = 1
    """Its handler failed for good."""
    UNREADABLE = 2
    """It could not be read as its type."""
    BEHIND = 3
    """An earlier event of its key is parked."""


class DeadEvent(NamedTuple):
    """An event that a subscription has parked; its cursor goes on past it."""

    subscription: int
    position: int
    lane: int
    key: str
    kind: int
    attempts: int
    failure: bytes | None
    at_ms: int


class SubscriptionRow(NamedTuple):
    """A named place in a stream that lasts."""

    number: int
    stream: str
    name: str
    lanes: int
    """Events are dealt out to so many lanes, by their key; each lane is one worker's."""


class LaneRow(NamedTuple):
    """A lane of a subscription: what of it is done."""

    subscription: int
    lane: int
    """From 0."""
    cursor: int
    """Events of the lane up to this position are done or parked."""
    done: tuple[int, ...]
    """Positions above the cursor that are, too."""
    parked: tuple[str, ...]
    """Keys of the lane whose events are parked."""


class LaneMark(NamedTuple):
    """How far a lane is; replaces what is kept. Written only while the lane is the worker's."""

    cursor: int
    done: tuple[int, ...]
    subscription: int
    lane: int
    is_given_up: bool = False
    """Whether the lane is anybody's from now on: this is the worker's last mark of it."""


class SchemaRow(NamedTuple):
    """What the events of a type and version look like, in a stream."""

    stream: str
    type: str
    version: int
    fingerprint: str
    """Names what the schema lets pass."""
    schema: bytes
    """JSON Schema."""
    at_ms: int
    """When it came here."""
    gone_to: int = 0
    """No event up to this position is of this version any more."""


class SchemaStand(NamedTuple):
    """The schemas of a stream, as they stood when one was judged beside them."""

    rows: list[SchemaRow]
    """By type and version."""
    last: int
    """The stream's last position then."""
