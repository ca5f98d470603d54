"""What people do with parked events: look, edit, redrive, discard; and resume a handler that stands still.

The laws: an event that is redriven keeps its id, key and idempotency key, and is delivered
before any later one of its key that waits behind it. The original is never changed. Who did
what, when and why is written in the transaction that does it. All of it is on disk when a verb
returns; workers in any process take it up from there.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from ..codec.json import encode
from ..core.events import Author, DeadFilter, EventRow, Redriven, Standing, SubscriptionRow
from ..core.positions import place_at, position_text
from ..doors import Door
from ..errors import NotParked
from .parked import (
    ParkedDetails,
    ParkedEvent,
    Redriving,
    SubscriptionStatus,
    details_view,
    kind_of,
    parked_view,
    status_view,
)

_NO_EVENT = EventRow(0, "", "", "", 0, "", 0, 0, "", b"")
_ROUND_MS = 200
_OUT_MAX = 500
"""So many redriven events are on their way at most: what fails again is noticed before too many do."""


class DeadLetters(ABC):
    """The part of a subscription's handle that is about parked events."""

    stream: str
    name: str
    _door: Callable[[], Door]
    _decode: Callable[[EventRow], object] | None
    """Reads an event as the handler would; None where only its name is known."""

    @abstractmethod
    async def _row(self) -> SubscriptionRow: ...

    # -- looking ---------------------------------------------------------------------------------

    async def status(self) -> SubscriptionStatus:
        """Whether it goes on, is suspended or stopped, and how much is parked."""
        row = await self._row()
        stands, counts = await self._door().read(
            lambda store: (
                next(one for one in store.streams.dead.standings() if one.subscription == row.number),
                store.streams.dead.counts(row.number),
            )
        )
        return status_view(stands, counts)

    async def parked(
        self,
        *,
        key: str | None = None,
        reason: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[ParkedEvent]:
        """The events that are parked, in their order, `limit` at most. Raises SubscriptionNotFound.

        `key` and `reason` (`failed`, `unreadable`, `crashed`, `behind`) filter; `after` is the last
        position of the page before. What a person has redriven is not parked while it is on its way.
        """
        row, wanted = await self._row(), DeadFilter((), key, kind_of(reason))
        last = 0 if after is None else place_at(after)
        dead = await self._door().read(
            lambda store: store.streams.dead.events(row.number, wanted, after=last, limit=limit)
        )
        return [parked_view(one) for one in dead]

    async def show(self, position: str) -> ParkedDetails:
        """One parked event: its id, type, payload, last error, what people did to it. Raises NotParked."""
        row, place = await self._row(), place_at(position)
        dead, event, notes = await self._door().read(
            lambda store: (
                store.streams.dead.events(row.number, DeadFilter((place,)), limit=1),
                store.streams.dead.event(row.number, place),
                store.streams.dead.notes(row.number, place),
            )
        )
        if not dead or event is None:
            raise self._not_parked(position)
        return details_view(dead[0], event, notes)

    # -- doing -----------------------------------------------------------------------------------

    async def edit(self, position: str, data: Any, *, reason: str, by: str = "") -> None:
        """Deliver `data` in place of the event's own payload when it is redriven.

        Id, key and all else stay, and so does the original. Raises NotParked, NotSerialisable for what is
        no JSON, and NotDecodable for what the handler could not read, where the handler itself is at hand.
        """
        payload = encode(data, f"event {position} of stream {self.stream!r}")
        row, place, author = await self._row(), place_at(position), self._author(by, reason)
        if self._decode is not None:
            event = await self._door().read(lambda store: store.streams.dead.event(row.number, place))
            self._decode((event or _NO_EVENT)._replace(payload=payload))
        edited = await self._door().write(
            lambda store: store.streams.dead.edit(row.number, place, payload, author)
        )
        if not edited:
            raise self._not_parked(position)

    async def redrive(
        self,
        positions: Iterable[str] | str | None = None,
        *,
        key: str | None = None,
        dry_run: bool = False,
        rate: float | None = None,
        max_failures: int | None = 5,
        reason: str = "",
        by: str = "",
    ) -> Redriving:
        """Have parked events delivered again: those at `positions`, of a `key`, or all. Attempts begin anew.

        A key that is held back is redriven whole, in its order, whichever of its events is named; new ones of
        the key come after. A `dry_run` changes nothing, and says which events would be delivered.

        `rate` hands over so many a second at most; ValueError unless it is more than 0. When `max_failures`
        events have failed again, the others stay parked; None: never mind. Returns when all are handed over
        to the workers, which may be long before they are handled. Cancelled, or crashed, it leaves what is
        not handed over parked: call again.
        """
        if rate is not None and rate <= 0:
            raise ValueError(f"rate is {rate}: it is how many events a second, and so more than 0")
        row, wanted = await self._row(), self._filter(positions, key)
        author = self._author(by, reason)
        if dry_run:
            found = await self._door().read(
                lambda store: store.streams.dead.redrive(row.number, 0, wanted, None, limit=1 << 62)
            )
            return Redriving([position_text(place) for place in found.places], 0, False, True)
        number = await self._door().write(lambda store: store.streams.dead.begin_redrive(row.number))
        return await _Redrive(self._door, row.number, number, wanted, author).run(rate, max_failures)

    async def discard(
        self,
        positions: Iterable[str] | str | None = None,
        *,
        key: str | None = None,
        reason: str,
        by: str = "",
    ) -> list[str]:
        """Give parked events up for good: those at `positions`, or of a `key`; gives their positions.

        They stay in the stream, and who discarded them, and why, is kept. When nothing of a key is
        parked any more, it goes on. Raises NotParked if there is none.
        """
        if positions is None and key is None:
            raise ValueError("say which to discard: positions, or a key")
        row, wanted, author = await self._row(), self._filter(positions, key), self._author(by, reason)
        places = await self._door().write(
            lambda store: store.streams.dead.discard(row.number, wanted, author)
        )
        if not places:
            raise self._not_parked(f"key {key!r}" if positions is None else ", ".join(_listed(positions)))
        return [position_text(place) for place in places]

    async def resume(self, *, reason: str = "") -> bool:
        """Let the handler go on, on all workers, if it was stopped or is suspended. Whether it was."""
        return await self._change((Standing.STOPPED, Standing.SUSPENDED), Standing.ACTIVE, reason)

    async def stop(self, *, reason: str) -> bool:
        """Let the handler begin no event, on any worker, until somebody resumes it. Whether it went on."""
        return await self._change((Standing.ACTIVE, Standing.SUSPENDED), Standing.STOPPED, reason)

    async def _change(self, before: tuple[Standing, ...], after: Standing, reason: str) -> bool:
        row, now_ms = await self._row(), self._door().clock.now_ms()
        return await self._door().write(
            lambda store: store.streams.dead.change_standing(
                row.number, before, after, reason=reason, at_ms=now_ms
            )
        )

    def _filter(self, positions: Iterable[str] | str | None, key: str | None) -> DeadFilter:
        if positions is None:
            return DeadFilter((), key)
        places = tuple(place_at(position) for position in _listed(positions))
        return DeadFilter(places or (0,), key)  # none at all is not all

    def _author(self, by: str, reason: str) -> Author:
        return Author(by, reason, self._door().clock.now_ms())

    def _not_parked(self, what: str) -> NotParked:
        return NotParked(
            f"Nothing at {what} of stream {self.stream!r} is parked by {self.name}(): it is done, discarded, "
            "or is on its way again.",
            hint="`parked()`, or `perdure dead list`, says what is.",
        )


class _Redrive:
    """Hands events over to the workers, round by round."""

    def __init__(
        self, door: Callable[[], Door], subscription: int, number: int, wanted: DeadFilter, author: Author
    ) -> None:
        self._door = door
        self._subscription = subscription
        self._number = number
        self._wanted = wanted
        self._author = author
        self._done: list[str] = []

    async def run(self, rate: float | None, max_failures: int | None) -> Redriving:
        """Until all are handed over, or too many have failed again."""
        if rate is None and max_failures is None:
            await self._hand_over(1 << 62)
            return Redriving(self._done, 0, False, False)
        room = float(_OUT_MAX) if rate is None else 1.0
        began_ms = self._door().clock.now_ms()
        while True:
            limit = int(room)
            stands = await self._hand_over(limit)
            room -= len(stands.places)
            is_stopped = max_failures is not None and stands.failed >= max_failures
            if is_stopped or len(stands.places) < limit:
                return Redriving(self._done, stands.failed, is_stopped, False)
            await self._pause()
            now_ms = self._door().clock.now_ms()
            passed_s, began_ms = (now_ms - began_ms) / 1000, now_ms
            room = float(_OUT_MAX) if rate is None else min(room + rate * passed_s, max(1.0, rate))
            if max_failures is not None:
                room = min(room, _OUT_MAX - stands.out)

    async def _hand_over(self, limit: int) -> Redriven:
        subscription, number, wanted, author = self._subscription, self._number, self._wanted, self._author
        stands = await self._door().write(
            lambda store: store.streams.dead.redrive(
                subscription, number, wanted, author, limit=max(0, limit)
            )
        )
        self._done += [position_text(place) for place in stands.places]
        return stands

    async def _pause(self) -> None:
        clock = self._door().clock
        passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        armed = clock.arm(clock.now_ms() + _ROUND_MS, lambda: passed.done() or passed.set_result(None))
        try:
            await passed
        finally:
            armed.cancel()


def _listed(positions: Iterable[str] | str) -> list[str]:
    return [positions] if isinstance(positions, str) else list(positions)
