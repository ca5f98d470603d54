"""`Event`, as handlers get it, and `event`, which names the types of them."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from ..core.events import EventRow
from ..core.positions import position_text
from ..errors import DefinitionError, PerdureError
from .tracing import parts_of

E = TypeVar("E")
T = TypeVar("T", bound=type)

_MARK = "__perdure_event__"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FAR_MS = 1 << 42
"""About the year 2109: up to there a float of seconds is exact to the microsecond, and twice as quick."""


def event(name: str, *, version: int = 1) -> Callable[[T], T]:
    """Give a class the name and version that events of it have: `@event("order.placed", version=3)`.

    Without it that is the class's own name, version 1. Raises DefinitionError.
    """
    if isinstance(name, type):  # pyright: ignore[reportUnnecessaryIsInstance] (not all who call have a checker)
        raise DefinitionError(
            f"@event stands on {name.__name__} without a name.",
            hint="Write @event('…'): the name of the type.",
        )
    if not name or type(version) is not int or version < 1:
        raise DefinitionError(f"@event({name!r}, {version=!r}): a name, and a version from 1 on.")

    def mark(kind: T) -> T:
        setattr(kind, _MARK, (name, version))
        return kind

    return mark


@dataclass(frozen=True, slots=True)
class Event(Generic[E]):
    """An event, as a handler gets it. Its attributes are those of CloudEvents 1.0."""

    data: E
    id: str
    """Names it within its source."""
    source: str
    type: str
    version: int
    key: str
    """Events of a key are handled in order. Empty: it has none."""
    time: datetime
    """When it happened, in UTC."""
    appended_at: datetime
    stream: str
    position: str
    """Where it stands in its stream. Opaque; of two of a stream, the later one is greater."""
    idempotency_key: str
    """Names the handling of this event by this handler: the same in every attempt, and after every crash."""
    attempt: int
    """1 for the first try. A try that a crash interrupted is not counted."""
    trace_parent: str = ""
    """The W3C `traceparent` that it was appended with; empty without one."""
    trace_state: str = ""
    """The `tracestate` that goes with it, if there is one."""
    is_shadow: bool = False
    """Whether a shadow handles it: what the function does to the world by itself is better left out then."""


@dataclass(frozen=True, slots=True)
class Appended:
    """An event that is on disk."""

    position: str
    """Where it stands in its stream. Opaque; of two of a stream, the later one is greater."""
    is_duplicate: bool
    """Whether it was there already, with the same id and content: nothing was written."""


def as_event(row: EventRow, data: E, *, stream: str, idempotency_key: str, attempt: int) -> Event[E]:
    """An event of a stream, as handlers and runs get it."""
    trace_parent, trace_state = parts_of(row.trace)
    return Event(
        data=data,
        id=row.id,
        source=row.source,
        type=row.type,
        version=row.version,
        key=row.key,
        time=moment(row.time_ms),
        appended_at=moment(row.at_ms),
        stream=stream,
        position=position_text(row.position),
        idempotency_key=idempotency_key,
        attempt=attempt,
        trace_parent=trace_parent,
        trace_state=trace_state,
    )


def kinds_of(of: Any) -> tuple[Any, ...]:
    """The types of a union; or the one type."""
    return get_args(of) if get_origin(of) in (Union, types.UnionType) else (of,)


def type_of(kind: Any) -> tuple[str, int]:
    """The name and version of a type of event."""
    return getattr(kind, _MARK, None) or (kind.__name__, 1)


def moment(at_ms: int) -> datetime:
    """A time in UTC, to the millisecond. Raises ValueError or OverflowError for one that is no date."""
    if -_FAR_MS < at_ms < _FAR_MS:
        return datetime.fromtimestamp(at_ms / 1000, tz=UTC)
    return _EPOCH + timedelta(milliseconds=at_ms)


def milliseconds(time: datetime) -> int:
    """Of a time that an event is given. Raises PerdureError for one without a time zone, and for no time."""
    if not isinstance(time, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] (not all who call have a checker)
        raise PerdureError(
            f"An event's time is {time!r}, which is no datetime.",
            hint="Use datetime.now(UTC), or datetime.fromisoformat(…) with a time zone.",
        )
    if time.tzinfo is None:
        raise PerdureError(
            f"An event's time is {time!r}, without a time zone.", hint="Use datetime.now(UTC)."
        )
    # Cut, and not rounded: an event of 9:59:59.9996 is none of the next hour, or of the year 10000.
    return (time - _EPOCH) // _MILLISECOND
