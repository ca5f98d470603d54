"""`Stream`: events in an order that lasts, and the functions that handle them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from inspect import isawaitable
from typing import Any, Generic, Literal, TypeVar, cast, get_origin

from ..core.events import Append, Clash, EventRow, NewEvent, Placed
from ..core.holding import held_here
from ..core.host import current_host
from ..core.positions import position_text
from ..core.retry import Retry, check_retry
from ..errors import DefinitionError, DuplicateConflict, OutsideRun, SchemaError
from ..runtime.attempt import Lent, StepInfo, current_attempt
from ..runtime.handlers import OnExhausted, Order
from ..schemas.compatibility import Compat, check_compat
from ..stores.base import Store
from .awaiting import next_event
from .declaring import check_function, check_key, check_on, no_key, no_such_type, not_of_stream
from .event import Appended, Event, as_event, kinds_of, milliseconds, type_of
from .handler import Handler
from .join import Join, Joined, Side, Unmatched
from .keeping import Unhandled, keep_rule, note_rule
from .options import Seconds, as_text
from .registering import check_chains, register
from .signal import standing_host
from .starter import STARTS_RETRY, Starter
from .step import Step, step, step_info
from .versions import Versions
from .window import Aggregation, Late, LatePolicy, Window, WindowSpec
from .workflow import WorkflowCall

E = TypeVar("E")
K = TypeVar("K")
S = TypeVar("S")
R = TypeVar("R")


class Stream(Generic[E]):
    """An append-only log of events, kept in the engine's store: `orders = Stream("orders", OrderEvent)`.

    `of` is the type of its events, or a union of several. Events of one `key` are handled
    in the order in which they were appended. An event that has been appended is on disk,
    and is there for every handler, now or later.
    """

    def __init__(
        self,
        name: str,
        of: type[E] | Any,
        *,
        key: Callable[[E], str] | None = None,
        compat: Compat = "full_transitive",
        keep: timedelta | None = None,
        keep_bytes: int | None = None,
        unhandled: Unhandled = "keep",
    ) -> None:
        """`compat`: which versions of a type of event must be able to read which others' events.

        `"backward"`: new code reads old events; `"forward"`: code that is still deployed reads new ones;
        `"full"`: both. With `_transitive` of all versions that are kept, else of the next one. `"none"`:
        nothing is checked. Raises DefinitionError for a type that cannot be kept as JSON.
        Events are kept for ever, unless `keep` says how long, or `keep_bytes` how many bytes of
        payloads: then the oldest go, where an engine runs in a process that defines the stream. What
        a handler has not done stays, unless `unhandled="remove"`; parked events stay while parked.
        """
        self.name = as_text(name, "A stream's name")
        self.compat: Compat = check_compat(compat, f"Stream {name!r}")
        self.keep_rule = keep_rule(name, keep, keep_bytes, unhandled)
        note_rule(self)
        check_key(name, key)
        self._key = key
        self.bridges: list[object] = []
        """Relays and intakes of the stream, which live as long as it does."""
        self.versions = Versions(self.name)
        self._append = make_append_step(self)
        self._names: dict[type, tuple[str, int]] = {}
        for kind in kinds_of(of):
            plain = get_origin(kind) or kind
            type_name, version = self._names[plain] = type_of(plain)
            self.versions.add(type_name, version, kind)

    def type_of(self, kind: type) -> tuple[str, int]:
        """The name and version of a type of event. Raises DefinitionError for another stream's."""
        known = self._names.get(get_origin(kind) or kind)
        if known is None:
            raise no_such_type(self.name, kind, self._names)
        return known

    @property
    def kinds(self) -> dict[type, tuple[str, int]]:
        """Its types of event: the name and version of each."""
        return dict(self._names)

    async def append(
        self, value: E, *, id: str | None = None, time: datetime | None = None, source: str | None = None
    ) -> Appended:
        """Append an event from a workflow: exactly once, whatever crashes. Elsewhere use `client.append`.

        Without `id` it has one of its own. `time` is when it happened; by default now. Raises
        NotSerialisable for a value that does not fit, DuplicateConflict for an id that stands
        for another event, OutsideRun outside a run.
        """
        (one,) = await self._append_in_run([value], id, time, source)
        return one

    async def append_batch(self, values: Iterable[E]) -> list[Appended]:
        """Append many, all or none, in their order. Otherwise as `append`."""
        return await self._append_in_run(values, None, None, None)

    def append_within(
        self, value: E, *, id: str | None = None, time: datetime | None = None, source: str = ""
    ) -> Appended:
        """Append from a step or a handler with `transaction=True`, in its transaction.

        The event is there if the step's result is, or the handler is done with its own event, and
        once. Raises as `append`, StepError in any other step or handler, OutsideRun where none runs.
        """
        attempting = current_attempt.get(None)
        if attempting is None:
            raise OutsideRun(
                f"Stream {self.name!r}: append_within() was called where no step and no handler runs.",
                hint="Call it in one with transaction=True, or use append(…, connection=…) of a client.",
            )
        info = attempting.info()
        lent = info.lent()
        drawn = info.draw().hex()[:32]
        new = self.new_event(value, drawn, lent.clock.now_ms(), id=id, time=time, source=source)
        (placed,) = _append_lent(self, lent, Append(self.name, [new]))
        return Appended(position_text(placed.position), placed.is_duplicate)

    async def _append_in_run(
        self, values: Iterable[E], id: str | None, time: datetime | None, source: str | None
    ) -> list[Appended]:
        if current_host.get(None) is None:
            raise OutsideRun(
                f"Stream {self.name!r}: append() was called outside a run.",
                hint="Use `await engine.append(stream, value)`, of an Engine or a Client.",
            )
        time_ms = None if time is None else milliseconds(time)
        sketches = [Sketch(*self._encode(value), self.key_of(value), id, source, time_ms) for value in values]
        placed = await self._append(self.name, sketches)
        return [Appended(position_text(place), is_duplicate) for place, is_duplicate in placed]

    async def next(
        self,
        kind: type[K],
        *,
        where: Mapping[str, object] | None = None,
        timeout: Seconds | None = None,
    ) -> Event[K]:
        """Wait in a workflow for the next event: `await orders.next(OrderPaid, where={"order": "17"})`.

        `where` names fields of the type and the values that must stand in them. An event that came
        before the wait counts, also one from before the run, as long as the stream keeps it. Each
        is given once to the run's calls with the same type and `where`, in their order: one that comes after
        a call has given up is the next call's. The event is part of the run's journal: whatever
        crashes, it is the same. `event.idempotency_key` is the run's, for this event.

        Raises TimeoutError after `timeout` (seconds, or timedelta), DefinitionError for a type
        that is not the stream's or a field that the type has not, NotSerialisable for a value that does not
        fit its field, NotDecodable for an event that cannot be read, OutsideRun outside a run.
        """
        type_name, _ = self.type_of(kind)
        row = await next_event(self.name, kind, type_name, where or {}, timeout)
        run_id = standing_host("next()").facts.id
        key = f"{run_id}/{self.name}/{position_text(row.position)}"
        return as_event(row, cast(K, self.decode(row)), stream=self.name, idempotency_key=key, attempt=1)

    def on(
        self,
        *kinds: type[K],
        name: str | None = None,
        concurrency: int = 32,
        order: Order = "key",
        retry: Retry | None = None,
        on_exhausted: OnExhausted = "park_key",
        begin: Literal["first", "next"] = "first",
        transaction: bool = False,
    ) -> Callable[[Callable[[Event[K]], Any] | Callable[[Event[K], Any], Any]], Handler[K]]:
        """Have a function handle the events of these types, or of all: `@orders.on(OrderPlaced)`.

        - `order`: `"key"` handles events of a key one after another, `"stream"` all of them, `"none"` any
          at any time; at most `concurrency` at once.
        - `retry`: an event whose handler fails is tried again; after the last attempt, or at once on
          `NonRetryable`, it is given up.
        - `on_exhausted`: what that means. `"park_key"` parks it, and later events of its key behind it;
          `"park_event"` parks it alone; `"stop"` stops the handler, on all workers, until it is resumed.
        - `begin`: where a new handler begins: with the `"first"` event that is kept, or the `"next"` to come.
        - `transaction`: the function gets the event and a connection, and what it writes to the store's
          own database by that is committed together with the mark that the event is done: exactly
          once, whatever crashes. A plain function of a few statements, as `@step(transaction=True)`.
        - `name`: by which its place in the stream is kept; by default the function's name.
        """
        where = f"@{self.name}.on"
        check_on(where, concurrency=concurrency, order=order, begin=begin, on_exhausted=on_exhausted)
        check_retry(retry, where)
        types = frozenset(self.type_of(kind)[0] for kind in kinds)

        def make(function: Callable[[Event[K]], Any] | Callable[[Event[K], Any], Any]) -> Handler[K]:
            given = ("event", "connection") if transaction else ("event",)
            check_function(function, where, name, given=given, may_wait=not transaction)
            return Handler(
                self.name, function, types=types, source=self, name=name, concurrency=concurrency,
                order=order, retry=retry or _RETRY, on_exhausted=on_exhausted, from_start=begin == "first",
                in_transaction=transaction,
            )  # fmt: skip

        return make

    def start_on(
        self,
        *kinds: type[K],
        id: Callable[[Event[K]], str] | None = None,
        name: str | None = None,
        begin: Literal["first", "next"] = "first",
    ) -> Callable[[Callable[[Event[K]], WorkflowCall[Any] | None]], Handler[K]]:
        """Have each event of these types, or of all, start a run: `@orders.start_on(OrderPlaced)`.

        The function gets the event and gives the call, `return ship(event.data)`, or None to start
        nothing. It is a plain one, and does nothing else: it may be called more than once. The run is
        on disk in the commit that marks the event as done, and any worker takes it up.

        - `id`: the run's, from the event; by default `stream/function/source/id`. The same id is one
          run, so that an event that comes twice starts nothing. An id whose run has other
          input parks the event.
        - `name`, `begin`: as `on` has them.
        """

        def make(function: Callable[[Event[K]], WorkflowCall[Any] | None]) -> Handler[K]:
            check_function(function, f"@{self.name}.start_on", name, given=("event",), may_wait=False)
            on = self.on(
                *kinds, name=name, concurrency=_STARTED_AT_ONCE, retry=STARTS_RETRY, begin=begin,
                transaction=True,
            )  # fmt: skip
            return on(Starter(function, id, name))

        return make

    def window(
        self,
        *kinds: type[K],
        initial: S,
        tumbling: Seconds | None = None,
        sliding: Seconds | None = None,
        every: Seconds | None = None,
        session: Seconds | None = None,
        merge: Callable[[S, S], S] | None = None,
        time: Callable[[K], datetime | None] | None = None,
        out_of_order: Seconds = 30.0,
        idle_after: Seconds | None = 60.0,
        max_future_skew: Seconds = 60.0,
        late: LatePolicy = "side",
        lateness: Seconds = 0.0,
        into: str | None = None,
        name: str | None = None,
        begin: Literal["first", "next"] = "first",
    ) -> Callable[[Callable[[S, Event[K]], S]], Aggregation[Stream[Window[S]], Stream[Late]]]:
        """Have a pure function make one value of the events in each window of time, for each key.

        The function gets the window's state, at first `initial`, and an event; it returns the new state. When
        the window closes, a `Window` is appended to the stream `results`: exactly once, whatever crashes.

        - `tumbling`: windows of this length, one after another. `sliding`: of this length, one beginning
          `every` so often. Both begin at whole multiples, counted in UTC. `session`: one lasts until a key
          is silent for so long; `merge` makes one state of two, for an event that stands between them.
        - `time`: when an event happened, from its data; by default the `time` that it was appended with.
        - `out_of_order`: how much later than one that happened after it an event may come.
        - `idle_after`: when no later event has come for so long, time goes on with the clock.
        - `max_future_skew`: an event further ahead of its append goes aside, and closes nothing.
        - `late`: an event whose window is closed goes to the stream `late` (`"side"`), or is only counted
          (`"drop"`), or, for as long as `lateness`, changes the window (`"update"`): a `Window` of the next
          `revision` is appended, which `supersedes` the one before.
        - `into`: the name of `results`, by default `<stream>.<function>`; `late` has `.late` behind it.
        - `begin`, `name`: as for `on`.

        Windows are kept by the stream's key. An event at which the function raises is parked, and is in no
        window. Raises DefinitionError.
        """
        types = frozenset(self.type_of(kind)[0] for kind in kinds)
        spec = WindowSpec(
            tumbling=tumbling, sliding=sliding, every=every, session=session, out_of_order=out_of_order,
            idle_after=idle_after, max_future_skew=max_future_skew, late=late, lateness=lateness,
        )  # fmt: skip
        return lambda function: Aggregation(
            self.name, function, initial=initial, merge=merge, time=time, spec=spec, types=types,
            source=self, name=name, begin=begin, has_key=self._key is not None,
            streams=lambda known, state: _results(into or f"{self.name}.{known}", state),
        )  # fmt: skip

    def join(
        self,
        kind: type[K],
        other: Stream[Any],
        other_kind: type[R],
        *,
        name: str,
        within: Seconds,
        unmatched: Unmatched = "none",
        out_of_order: Seconds = 30.0,
        idle_after: Seconds | None = 60.0,
        max_future_skew: Seconds = 60.0,
        into: str | None = None,
    ) -> Join[Stream[Joined[K, R]], Stream[Late]]:
        """Pair the events of two streams that have the same key and happened `within` a time of each other.

        A `Joined` is appended to the stream `results` for each pair, exactly once, whatever crashes. An event
        waits for the other side, in the store, until nothing can come any more that it could be paired with.

        - `unmatched`: of which side an event that was paired with none is told then, alone.
        - `out_of_order`, `idle_after`, `max_future_skew`: as for `window`, of each stream by itself. An event
          that is later than it may be goes to the stream `late`.
        - `name`: of its place in both streams. `into`: of `results`; by default `<stream>.<name>`.

        Both streams are read from the first event on. Raises DefinitionError.
        """
        results = into or f"{self.name}.{name}"
        pairs: Stream[Joined[K, R]] = Stream(results, Joined[kind, other_kind], key=_key_of)
        return Join(
            (self._side(kind), other._side(other_kind)), name=name, within=within, unmatched=unmatched,
            out_of_order=out_of_order, idle_after=idle_after, max_future_skew=max_future_skew,
            streams=(pairs, Stream(f"{results}.late", Late, key=_key_of)),
        )  # fmt: skip

    def _side(self, kind: type) -> Side:
        return Side(self.name, self.type_of(kind)[0], self, self._key is not None)

    def new_event(
        self,
        value: E,
        drawn: str,
        now_ms: int,
        *,
        id: str | None,
        time: datetime | None,
        source: str,
        trace: str = "",
    ) -> NewEvent:
        """An event to be appended; `drawn` is its id if it is given none, and was never drawn before."""
        type_name, version, payload = self._encode(value)
        return NewEvent(
            id=drawn if id is None else as_text(id, "An event's id"),
            source=as_text(source, "An event's source", shortest=0),
            type=type_name,
            version=version,
            key=self.key_of(value),
            time_ms=now_ms if time is None else milliseconds(time),
            at_ms=now_ms,
            trace=trace,
            payload=payload.encode(),
            is_resent=id is not None,
        )

    def key_of(self, value: E) -> str:
        """The key of an event. Raises NotSerialisable for one that is no text."""
        if self._key is None:
            return ""
        try:
            found = self._key(value)
        except Exception as error:
            raise no_key(self.name, value, f"{type(error).__name__}: {error}") from error
        if not isinstance(found, str):  # pyright: ignore[reportUnnecessaryIsInstance] (not all who call have a checker)
            raise no_key(self.name, value, f"it is of type {type(found).__name__}, and no text")
        return as_text(found, "An event's key", shortest=0)

    def _encode(self, value: E) -> tuple[str, int, str]:
        known = self._names.get(type(value))
        if known is None:
            raise not_of_stream(self.name, value, self._names)
        return *known, self.versions.encode(known[0], value).decode()

    def decode(self, event: EventRow) -> E:
        """The value of an event, brought to this code's version. Raises UnknownEvent, or NotDecodable."""
        return self.versions.decode(event)

    def register(self, store: Store, append: Append, *, at_ms: int, connection: Any = None) -> None:
        """Keep what the events of an append look like, before the first of each type.

        Raises SchemaError, and DefinitionError where upcasters leave a gap. Called from the
        thread that writes, or with a connection that has a transaction open.
        """
        for type_name in dict.fromkeys(event.type for event in append.events):
            kind = self.versions.kinds[type_name]
            register(store, self.name, kind, self.compat, at_ms=at_ms, connection=connection)

    def check_chains(self, store: Store) -> None:
        """Raise DefinitionError if events that the stream keeps cannot be read.

        Called from the thread that writes.
        """
        check_chains(store, self.name, self.versions.kinds, self.compat)

    def __repr__(self) -> str:
        return f"<stream {self.name}>"


def _results(name: str, state: Any) -> tuple[Stream[Window[Any]], Stream[Late]]:
    """The streams of an aggregation, whose states are of that type."""
    return Stream(name, Window[state], key=_key_of), Stream(f"{name}.late", Late, key=_key_of)


def _key_of(result: Window[Any] | Late | Joined[Any, Any]) -> str:
    return result.key


_RETRY = Retry(attempts=6, max_delay=300.0)
_STARTED_AT_ONCE = 200
"""So many runs that events start go into one commit."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """An event that a workflow appends, before it is known when."""

    type: str
    version: int
    payload: str
    key: str
    id: str | None
    source: str | None
    time_ms: int | None


APPEND_STEP = f"{__name__}:make_append_step.<locals>.append"
"""The `source` of the steps by which workflows append."""


def make_append_step(declared: Stream[Any]) -> Step[[str, list[Sketch]], list[Placed]]:
    """The step by which a workflow appends to a stream; the journal knows its arguments."""

    def append(stream: str, sketches: list[Sketch]) -> list[Placed]:
        return _append_within(declared, sketches)

    give_up_on = (DuplicateConflict, SchemaError, DefinitionError)
    return step(name="append", transaction=True, retry=Retry(give_up_on=give_up_on))(append)


def _append_within(declared: Stream[Any], sketches: list[Sketch]) -> list[Placed]:
    """Write a workflow's events in the transaction that records that they are written."""
    info = step_info()
    lent = info.lent()
    return _append_lent(declared, lent, Append(declared.name, events_of(sketches, info, lent.clock.now_ms())))


def events_of(sketches: list[Sketch], info: StepInfo, now_ms: int) -> list[NewEvent]:
    """What a step of a workflow appends."""
    return [
        NewEvent(
            id=sketch.id or f"{info.idempotency_key}-{number}",
            source=sketch.source if sketch.source is not None else f"run/{info.run_id}",
            type=sketch.type,
            version=sketch.version,
            key=sketch.key,
            time_ms=now_ms if sketch.time_ms is None else sketch.time_ms,
            at_ms=now_ms,
            trace="",
            payload=sketch.payload.encode(),
            is_resent=sketch.id is not None,
        )
        for number, sketch in enumerate(sketches)
    ]


def _append_lent(declared: Stream[Any], lent: Lent, append: Append) -> list[Placed]:
    holding = held_here.get()
    if holding is not None:
        return holding.append(append)
    # Looked for each time: what was put before may have been undone with its transaction.
    declared.register(lent.store, append, at_ms=lent.clock.now_ms(), connection=lent.connection)
    outcome = lent.store.streams.append_within(lent.connection, append)
    assert not isawaitable(outcome), "a step is lent a connection that blocks"
    return placed_or_refuse(append, outcome)


def placed_or_refuse(append: Append, outcome: list[Placed] | Clash) -> list[Placed]:
    """Where the events of an append stand. Raises DuplicateConflict."""
    if not isinstance(outcome, Clash):
        return outcome
    clash = append.events[outcome.place]
    raise DuplicateConflict(
        f"Stream {append.stream!r} has another event with id {clash.id!r} from source {clash.source!r}, at "
        f"{position_text(outcome.position)}: the same id with other content. Nothing was appended.",
        hint="An id names one event for as long as that is kept: give this one an id of its own.",
    )
