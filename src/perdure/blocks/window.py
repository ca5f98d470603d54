"""`Window` and `Late`, and the function that makes the one and leaves the other: `Aggregation`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import msgspec

from ..codec.hints import resolve
from ..codec.json import decoder, encode
from ..core.event_time import LATE
from ..core.events import EventRow, NewEvent, SubscriptionRow
from ..core.positions import position_text
from ..core.retry import Retry
from ..core.windows import Fold, Missed, Told, WindowRules
from ..errors import DefinitionError, NotDecodable, NotSerialisable
from ..runtime.subscriptions import Served
from ..runtime.windower import Result, WindowDefinition, Windower
from .declaring import check_function
from .event import Event, event, milliseconds, moment
from .handler import Handler, Source
from .options import Seconds, to_ms

if TYPE_CHECKING:
    from ..runtime.driver import Driver

S = TypeVar("S")
Results = TypeVar("Results", bound="Target")
Lates = TypeVar("Lates", bound="Target")

LatePolicy = Literal["side", "update", "drop"]

_LONGEST_ID = 200


@event("window")
@dataclass(frozen=True, slots=True)
class Window(Generic[S]):
    """The result of a window of one key, when it has closed: an event of `Aggregation.results`."""

    key: str
    start: datetime
    """Inclusive. Of a session: its first event."""
    end: datetime
    """Exclusive. Of a session: its last event, and the gap."""
    value: S
    """What the function made of the window's events."""
    events: int
    """How many those are."""
    revision: int = 1
    """1 for the first result of a window; one more each time that late events change it."""
    supersedes: tuple[str, ...] = ()
    """The ids of the results in whose place this one comes: of several sessions, if they became one."""


@event("late")
@dataclass(frozen=True, slots=True)
class Late:
    """An event that is in no window, or not in all of its own: an event of `Aggregation.late`."""

    reason: Literal["late", "future", "unset", "missing", "keyless", "unreadable"]
    """`late`: its window was closed, or what it could be paired with is gone. `future`: it is further ahead
    of its append than `max_future_skew`. `unset`: it is of 1970. `missing`: it has no time. `keyless`: it has
    no key. `unreadable`, in a join: it is not what its type says."""
    key: str
    type: str
    data: Any
    """The event's own data, as JSON knows it."""
    id: str
    source: str
    position: str
    """Where the event stands in its stream."""
    time: datetime | None
    """When it happened; None if that is missing, or is no date."""
    appended_at: datetime
    late_by: timedelta | None = None
    """How far the watermark was past it. None if it is not late."""
    windows: tuple[tuple[datetime, datetime], ...] = ()
    """Start and end of those of its windows that were closed."""


class Target(Protocol):
    """A stream, as far as results need it."""

    name: str


class WindowSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a window's definition was given, as it was given."""

    tumbling: Seconds | None
    sliding: Seconds | None
    every: Seconds | None
    session: Seconds | None
    out_of_order: Seconds
    idle_after: Seconds | None
    max_future_skew: Seconds
    late: LatePolicy
    lateness: Seconds

    def rules(self, where: str) -> WindowRules:
        """The same in milliseconds. Raises DefinitionError for what cannot be."""
        shapes = [one for one in (self.tumbling, self.sliding, self.session) if one is not None]
        if len(shapes) != 1:
            raise DefinitionError(
                f"{where}: windows are of one form: tumbling=…, sliding=… or session=….",
                hint="Write tumbling=timedelta(hours=1); or sliding=timedelta(hours=1), "
                "every=timedelta(minutes=5); or session=timedelta(minutes=30), merge=….",
            )
        if (self.sliding is None) != (self.every is None):
            raise DefinitionError(f"{where}: sliding=… goes with every=…: how often such a window begins.")
        if self.late not in ("side", "update", "drop") or (self.late == "update") != bool(self.lateness):
            raise DefinitionError(
                f"{where}: late={self.late!r} with lateness={self.lateness!r} cannot be.",
                hint="late='side', late='drop', or late='update' with a lateness: how long a closed window "
                "still takes events.",
            )
        size_ms = _ms(shapes[0], f"{where}: the length of a window")
        every_ms = 0 if self.session is not None else _ms(self.every or shapes[0], f"{where}: every")
        if every_ms > size_ms:
            raise DefinitionError(f"{where}: windows that begin less often than they are long leave gaps.")
        return WindowRules(
            size_ms=size_ms,
            every_ms=every_ms,
            lateness_ms=_ms(self.lateness, f"{where}: lateness", zero=True),
            **time_rules(
                where,
                out_of_order=self.out_of_order,
                idle_after=self.idle_after,
                max_future_skew=self.max_future_skew,
            ),
        )


class Aggregation(Handler[Any], WindowDefinition, Generic[Results, Lates]):
    """A function over the windows of a stream; made by `Stream.window`."""

    results: Results
    """The stream of its results: events of type `Window`, in the order in which they close for each key."""
    late: Lates
    """The stream of events that came too late, or whose time cannot be: events of type `Late`."""

    def __init__(
        self,
        stream: str,
        function: Callable[[Any, Event[Any]], Any],
        *,
        initial: object,
        merge: Callable[[Any, Any], Any] | None,
        time: Callable[[Any], datetime | None] | None,
        spec: WindowSpec,
        types: frozenset[str],
        source: Source,
        name: str | None,
        begin: Literal["first", "next"],
        has_key: bool,
        streams: Callable[[str, Any], tuple[Results, Lates]],
    ) -> None:
        known = name or getattr(function, "__name__", repr(function))
        where = f"@{stream}.window: {known}()"
        check_function(function, f"@{stream}.window", name, given=("state", "event"), may_wait=False)
        if not has_key:
            raise DefinitionError(
                f"{where}: stream {stream!r} has no key, and windows are kept by key.",
                hint="Give it one, Stream(…, key=lambda event: …), if only key=lambda event: 'all'.",
            )
        if begin not in ("first", "next"):
            raise DefinitionError(f"{where}: begin={begin!r} cannot be: it is 'first' or 'next'.")
        self.rules = spec.rules(where)
        if (merge is None) != (spec.session is None):
            raise DefinitionError(
                f"{where}: session=… goes with merge=…, which makes one state of those of two sessions.",
                hint="Two sessions become one when an event comes that stands between them.",
            )
        self._policy = spec.late
        self._function, self._merge, self._time = function, merge, time
        self._initial = encode(initial, f"{where}: initial")
        hint = _state_of(function, initial)
        self._read_state = decoder(hint, f"{where}: state")
        self._read_state(self._initial)
        self._where = where
        self.results, self.late = streams(known, hint)
        super().__init__(
            stream, self._refuse, types=types, source=source, name=known, concurrency=1, order="stream",
            retry=_ONCE, from_start=begin == "first",
        )  # fmt: skip
        self.__doc__ = function.__doc__

    def __call__(self, state: Any, event: Event[Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] (it has a state besides)
        """Call the function, as a test may."""
        return self._function(state, event)

    def serve(self, driver: Driver, row: SubscriptionRow) -> Served:
        """Put events into windows in this worker; for the runtime."""
        return Windower(driver, self, row)

    def time_of(self, event: EventRow) -> int | None:
        if self._time is None:
            return event.time_ms
        time = self._time(self._read(event))
        return None if time is None else milliseconds(time)

    def fold(self, event: EventRow, subscription: SubscriptionRow) -> Fold:
        return _Fold(self, event, subscription)

    def merge(self, earlier: bytes, later: bytes) -> bytes:
        assert self._merge is not None, "only sessions are merged"
        return self._write(self._merge(self._read_state(earlier), self._read_state(later)))

    def step(self, state: bytes | None, event: Event[Any]) -> bytes:
        # Always from what is kept, so that a crash makes no difference.
        return self._write(self._function(self._read_state(state or self._initial), event))

    def _write(self, state: Any) -> bytes:
        written = encode(state, f"{self._where}: state")
        try:
            self._read_state(written)
        except NotDecodable as error:
            raise NotSerialisable(
                f"{self._where}: what it returned",
                f"it does not fit: {str(error).rstrip('.')}",
                hint="Return the new state, of the type that the return hint says, else of `initial`'s.",
            ) from error
        return written

    def _refuse(self, event: Event[Any]) -> None:
        raise AssertionError("windows are no handler")

    @property
    def _sender(self) -> str:
        return f"{self.stream}/{self.name}"

    def _id(self, key: str, start_ms: int, revision: int) -> str:
        if len(key) > _LONGEST_ID:
            key = blake2b(key.encode(), digest_size=16).hexdigest()
        return f"{key}/{start_ms}/{revision}"

    def result(self, told: Told, now_ms: int) -> Result:
        window = Window(
            key=told.key,
            start=moment(told.start_ms),
            end=moment(told.end_ms),
            value=self._read_state(told.state),
            events=told.events,
            revision=told.revision,
            supersedes=tuple(self._id(told.key, *one) for one in told.replaces),
        )
        name = self._id(told.key, told.start_ms, told.revision)
        # Its last millisecond: so it falls into the right one of greater windows over these.
        return self._event(self.results.name, "window", name, told.key, told.end_ms - 1, now_ms, window)

    def missed(self, event: EventRow, missed: Missed, now_ms: int) -> Result | None:
        if missed.reason == LATE and self._policy == "drop":
            return None
        return self.late.name, late_event(event, missed, self.time_of(event), now_ms, source=self._sender)

    def _event(
        self, stream: str, kind: str, name: str, key: str, time_ms: int, now_ms: int, value: object
    ) -> Result:
        payload = encode(value, f"{self._where}: {kind}")
        return stream, NewEvent(name, self._sender, kind, 1, key, time_ms, now_ms, "", payload, True)

    def __repr__(self) -> str:
        return f"<windows {self.name} of stream {self.stream}>"


class _Fold:
    """Adds one event, which is read once, to the states of windows."""

    def __init__(self, aggregation: Aggregation[Any, Any], event: EventRow, row: SubscriptionRow) -> None:
        self._aggregation = aggregation
        self._row = event
        self._subscription = row
        self._event: Event[Any] | None = None

    def __call__(self, state: bytes | None) -> bytes:
        if self._event is None:
            self._event = self._aggregation.read(self._row, self._subscription, 1)
        return self._aggregation.step(state, self._event)


_ONCE = Retry(attempts=1)


def late_event(event: EventRow, missed: Missed, time_ms: int | None, now_ms: int, *, source: str) -> NewEvent:
    """The event that tells of one which is not where it should be."""
    is_late = missed.reason == LATE
    late = Late(
        reason=missed.reason,  # pyright: ignore[reportArgumentType] (the core's are these)
        key=event.key,
        type=event.type,
        data=_json_of(event),
        id=event.id,
        source=event.source,
        position=position_text(event.position),
        time=None if time_ms is None else _moment_or_none(time_ms),
        appended_at=moment(event.at_ms),
        late_by=timedelta(milliseconds=missed.watermark_ms - (time_ms or 0)) if is_late else None,
        windows=tuple((moment(start_ms), moment(end_ms)) for start_ms, end_ms in missed.windows),
    )
    at_ms = event.at_ms if time_ms is None or not is_late else time_ms
    payload = encode(late, f"late event of {source}")
    return NewEvent(late.position, source, "late", 1, event.key, at_ms, now_ms, "", payload, True)


def _json_of(event: EventRow) -> Any:
    try:
        return msgspec.json.decode(event.payload)
    except msgspec.DecodeError:
        return event.damage or event.payload.hex()


def time_rules(
    where: str, *, out_of_order: Seconds, idle_after: Seconds | None, max_future_skew: Seconds
) -> dict[str, Any]:
    """The fields of `TimeRules`. Raises DefinitionError."""
    return {
        "out_of_order_ms": _ms(out_of_order, f"{where}: out_of_order", zero=True),
        "idle_after_ms": to_ms(idle_after, f"{where}: idle_after"),
        "future_ms": _ms(max_future_skew, f"{where}: max_future_skew", zero=True),
    }


def _ms(value: Seconds, what: str, *, zero: bool = False) -> int:
    if zero and not value:
        return 0
    found = to_ms(value, what)
    assert found is not None
    return found


def _state_of(function: Callable[..., Any], initial: object) -> Any:
    """The type of the state: what the function says that it returns, else that of the initial one."""
    try:
        return resolve(function, {})["return"]
    except (NameError, KeyError):
        return type(initial)


def _moment_or_none(time_ms: int) -> datetime | None:
    try:
        return moment(time_ms)
    except (ValueError, OverflowError, OSError):
        return None
