"""Trying other code of a handler beside the one that runs: a shadow, and what it would have done.

A shadow has a place of its own in the stream, as any handler. What it would have done is written as events
(`blocks/shadow.py`), and compared when it is asked for: with what there is in the store then, by ids.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from ..core.events import EventRow, SubscriptionRow
from ..core.holding import Effect
from ..doors import Door
from ..errors import PerdureError
from ..stores.base import Store
from ..stores.streams import LANES
from .places import place_before

if TYPE_CHECKING:
    from ..blocks.handler import Handler
    from ..blocks.shadow import Held, Shadow

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a shadow would have done, and that is not so in the store."""

    position: str
    """Of the event that was handled."""
    effect: Effect
    verdict: Literal["differs", "missing"]
    """Whether the store has something else under its id, or nothing: the handler did not, or not yet."""
    found: str
    """What the store has in its place, as JSON; empty when nothing."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a shadow would have done, beside what is in the store."""

    handled: int
    """How many events the shadow has handled."""
    same: int
    """How many of its effects are in the store as it would have them."""
    unknown: int
    """How many have no id by which they could be looked for: drawn ones, and signals."""
    differences: Sequence[Difference]
    """By position; at most as many as were asked for."""


class Forkable:
    """The part of a subscription that is about shadows."""

    stream: str
    name: str
    _door: Callable[[], Door]
    _handler: Handler[Any] | None

    @abstractmethod
    async def _row(self) -> SubscriptionRow:
        """Raises SubscriptionNotFound."""

    async def fork(self, name: str, *, begin: str | datetime = "earliest") -> Shadow[Any]:
        """A shadow of the handler: it gets the same events from `begin` on, and what it does is held back.

        It is a handler named `handler~name`, with a place of its own: of an engine that serves all handlers
        of its process it is served at once, for as long as you hold what this gives; else give it to
        `Engine(handlers=[…])`. Forked again by that name, it goes on where it was. `begin` is a place
        as `seek` takes one.

        What its function does through Perdure (events that it appends, runs that it starts, signals that
        it sends) is written into a stream instead, and what it writes in a transaction is rolled back.
        What it does to the world by itself **is done**: leave that out where `event.is_shadow`. To wait for
        a run or an update is refused, and parks the event in the shadow.

        Raises DefinitionError for windows, joins and relays, PerdureError for a subscription that was
        asked for by name, and as `seek` does.
        """
        from ..blocks.serving import define
        from ..blocks.shadow import Shadow

        if self._handler is None:
            raise PerdureError(
                f"{self.stream}/{self.name} cannot be forked by its name: its function is needed.",
                hint="Use `client.subscription(handler)`, with the handler itself.",
            )
        await self._row()  # says so when there is none
        place = await place_before(self._door(), self.stream, begin)
        of = self._handler
        shadow = _living(of, name) or Shadow(of, name)
        door, now_ms = self._door(), self._door().clock.now_ms()
        await door.write(lambda store: _put(store, shadow, place, now_ms))
        define(shadow)
        await door.write(lambda store: None)  # after which an engine of this process looks for new handlers
        return shadow

    async def compare(self, *, limit: int = 100) -> Comparison:
        """What the shadow would have done so far, beside what is in the store now.

        Effects are looked for by the ids that they were given: so have the handler make them of
        `event.idempotency_key`, which is the same for both. What the handler did and the shadow would not
        have done is not seen. Raises SubscriptionNotFound.
        """
        await self._row()
        stream, name = self.stream, self.name
        return await self._door().read(lambda store: _compare(store, stream, name, limit))


def _living(of: Handler[Any], name: str) -> Shadow[Any] | None:
    """The shadow of that name that somebody has."""
    from ..blocks.serving import defined_handlers
    from ..blocks.shadow import Shadow, shadow_name

    for one in defined_handlers():
        if isinstance(one, Shadow) and one.name == shadow_name(of.name, name):
            shadow = cast("Shadow[Any]", one)  # of what type of events, nobody asks
            if shadow.of is of:
                return shadow
    return None


def _put(store: Store, shadow: Shadow[Any], place: int, now_ms: int) -> None:
    """Make its place, unless it has one. A crash before it is sent there is made good by the next fork."""
    streams = store.streams
    row = streams.subscribe(shadow.stream, shadow.name, lanes=LANES, from_start=True)
    if not streams.seeks(row.number, limit=1):
        streams.seek(row.number, place, now_ms=now_ms, who="", reason=f"a shadow of {shadow.of.name}")


def _compare(store: Store, stream: str, name: str, limit: int) -> Comparison:
    """On the thread that reads."""
    same = unknown = 0
    differences: list[Difference] = []
    latest = _held(store, stream, name)
    for position in sorted(latest):
        for effect in latest[position].effects:
            is_same, found = _look_for(store, effect)
            if is_same is None:
                unknown += 1
            elif is_same:
                same += 1
            elif len(differences) < limit:
                verdict: Literal["differs", "missing"] = "missing" if found is None else "differs"
                differences.append(Difference(position, effect, verdict, found or ""))
    return Comparison(len(latest), same, unknown, differences)


def _held(store: Store, stream: str, name: str) -> dict[str, Held]:
    """What it would have done, by the position of the event; of one that it had several times, the latest."""
    from ..blocks.shadow import Held, held_name
    from ..codec.json import decoder

    decode = decoder(Held)
    latest: dict[str, Held] = {}
    source, after = held_name(stream, name), 0
    while True:
        page = store.streams.events(source, after=after, limit=_PAGE)
        for one in page.events:
            held = decode(one.payload)
            latest[held.position] = held
        if page.gone > after:
            after = page.gone
        elif page.after == after:
            return latest
        else:
            after = page.after


def _look_for(store: Store, effect: Effect) -> tuple[bool | None, str | None]:
    """Whether the store has it, and what it has under its id; (None, …) where nobody can say."""
    if not effect.id or effect.kind == "send":
        return None, None
    if effect.kind == "start":
        run = store.run_by_id(effect.id)
        found = None if run is None else run.input.decode()
        return run is not None and (run.workflow, found) == (effect.where, effect.data), found
    event = _event_of(store, effect)
    found = None if event is None else event.payload.decode()
    return event is not None and (event.type, event.key, found) == (
        effect.type,
        effect.key,
        effect.data,
    ), found


def _event_of(store: Store, effect: Effect) -> EventRow | None:
    place = store.streams.find(effect.where, source=effect.source, id=effect.id)
    if place is None:
        return None
    events = store.streams.events(effect.where, after=place - 1, limit=1).events
    return events[0] if events else None
