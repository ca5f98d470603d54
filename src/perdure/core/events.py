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
    """The W3C `traceparent`, and behind a blank the `tracestate` if there is one; empty without one."""
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
    gone: int = 0
    """Events up to here have been let go: who asks for some of them is given nothing."""
    last: int = 0
    """The last position in the stream."""


class DeadKind(IntEnum):
    """Why an event is parked."""

    FAILED = 1
    """Its handler failed for good."""
    UNREADABLE = 2
    """It could not be read as its type."""
    BEHIND = 3
    """An earlier event of its key is parked, or it waits in line on disk."""
    CRASHED = 4
    """Workers died while they handled it."""


class Standing(IntEnum):
    """Whether a subscription goes on."""

    ACTIVE = 1
    SUSPENDED = 2
    """Most attempts failed of late: only one event is tried now and then, until one succeeds."""
    STOPPED = 3
    """Until a person resumes it."""


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
    holds: int = 0
    """Whether later events of its key wait behind it."""
    due: int = 0
    """Whether it is to be delivered in its turn, and so not parked."""
    redrives: int = 0
    """How often it was redriven."""


class DueEvents(NamedTuple):
    """Events of a key that wait on disk, and whose turn it is."""

    events: list[EventRow]
    """As they are to be delivered: edits of them count."""
    is_any_left: bool
    """Whether others of the key are there, which stay parked."""


class DeadFilter(NamedTuple):
    """Which parked events are meant. Unset fields do not filter."""

    places: tuple[int, ...] = ()
    key: str | None = None
    kind: int | None = None


class Deed(IntEnum):
    """What a person did to a parked event."""

    EDITED = 1
    REDRIVEN = 2
    DISCARDED = 3


class Author(NamedTuple):
    """Who does something to parked events, why, and when."""

    who: str
    reason: str
    at_ms: int


class DeadNote(NamedTuple):
    """Who did what to a parked event, and why."""

    place: int
    deed: int
    at_ms: int
    who: str
    reason: str
    payload: bytes | None
    """Of an edit: what is delivered from then on."""


class Redriven(NamedTuple):
    """What a redrive has come to so far."""

    places: list[int]
    """Handed over now; in a dry run, what would be."""
    failed: int
    """How many events of this redrive have failed again."""
    out: int
    """How many are on their way."""


class SubscriptionStanding(NamedTuple):
    """How a subscription stands."""

    subscription: int
    edition: int
    """Grows whenever a worker must look again at what is parked, or how it stands."""
    status: int
    at_ms: int
    """Since when."""
    reason: str


class SubscriptionRow(NamedTuple):
    """A named place in a stream that lasts."""

    number: int
    stream: str
    name: str
    lanes: int
    """Events are dealt out to so many lanes, by their key; each lane is one worker's."""
    is_intake: bool = False
    """Whether it is a bridge's: its stream is outside, and has no events and no places here."""
    other: str = ""
    """The second stream of a join."""


class LanePast(NamedTuple):
    """How far a lane was at some time."""

    at_ms: int
    cursor: int
    behind: int
    """How far the end of the stream was, in places; 0: all of the lane's events were done."""
    handled: int
    """How many events had been done or parked, since it was made."""


class LaneRow(NamedTuple):
    """A lane of a subscription: what of it is done."""

    subscription: int
    lane: int
    """From 0."""
    cursor: int
    """Events of the lane up to this position are done or parked."""
    done: tuple[int, ...]
    """What is done above the cursor, too: from, to, from, to, both included. Ascending."""
    parked: tuple[str, ...]
    """Keys of the lane whose events wait behind others on disk."""
    watch: LaneWatch | None = None
    """What is known of workers that died with the lane."""
    generation: int = 0
    """How often the lane was sent elsewhere: what was begun before that is not marked any more."""
    history: tuple[LanePast, ...] = ()
    """How far it was, the oldest first."""


class LaneMark(NamedTuple):
    """How far a lane is; replaces what is kept. Written only while the lane is the worker's."""

    cursor: int
    done: tuple[int, ...]
    subscription: int
    lane: int
    generation: int = 0
    """As the worker knows it: of an older one nothing is kept."""
    history: tuple[LanePast, ...] = ()
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


class LaneWatch(NamedTuple):
    """A lane whose worker has died: what it handles is written down before it begins."""

    subscription: int
    lane: int
    crashes: int
    """How many workers died with it, one after another. 0: it is not watched any more."""
    until: int
    """Events up to this position may have been in hand when the last one died."""
    begun: tuple[int, ...] = ()
    """Positions of events that are in hand."""
    suspects: tuple[tuple[int, int], ...] = ()
    """(position, deaths) of events that workers had in hand when they died."""


def count_crash(watch: LaneWatch | None, subscription: int, lane: int, *, until: int) -> LaneWatch:
    """What is known of a lane whose worker has died now; up to `until` it may have had events in hand.

    The first death is nobody's in particular: nothing had been written down. It counts
    for those that are in hand when the next worker dies.
    """
    if watch is None:
        return LaneWatch(subscription, lane, 1, until)
    before = min(1, watch.crashes)
    deaths = dict(watch.suspects)
    deaths |= {position: deaths.get(position, before) + 1 for position in watch.begun}
    return LaneWatch(subscription, lane, watch.crashes + 1, until, (), tuple(sorted(deaths.items())))
