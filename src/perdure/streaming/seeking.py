"""Sending a handler to another place in its stream: back, to have events again, or on, past some."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..blocks.event import moment
from ..core.events import SubscriptionRow
from ..core.positions import position_text
from ..core.standing import Move
from ..doors import Door
from ..errors import StreamError, SubscriptionNotFound
from .places import gone_at, place_before


@dataclass(frozen=True, slots=True)
class Seek:
    """What it does, or would do, to send a handler to a place."""

    position: str
    """It goes on with the first event at this position or above."""
    again: int
    """How many events that are done, or parked, are delivered again."""
    skipped: int
    """How many events that are not done are not delivered."""
    unparked: int
    """How many that are parked, of those that are delivered again, are parked no more."""
    is_exact: bool
    """Whether the first two were counted; from 10,000 events on they are estimated."""
    is_done: bool
    """False for a dry run."""


@dataclass(frozen=True, slots=True)
class SeekNote:
    """That somebody has sent a handler to a place."""

    position: str
    """It went on with the first event at this position or above."""
    at: datetime
    by: str
    reason: str


class Seekable:
    """The part of a subscription that sends it elsewhere."""

    stream: str
    name: str
    _door: Callable[[], Door]

    @abstractmethod
    async def _row(self) -> SubscriptionRow:
        """Raises SubscriptionNotFound."""

    async def seek(
        self,
        to: str | datetime = "",
        *,
        event: str | None = None,
        source: str = "",
        dry_run: bool = False,
        reason: str = "",
        by: str = "",
    ) -> Seek:
        """Let the handler go on elsewhere: `to` is `"earliest"` (what is kept), `"latest"` (past all), a
        position, or a time: then with the first event that was appended at it or later. Or `event` and
        `source` name an event that was appended with an id. That event is the next one.

        It is on disk when this returns, with `reason` and `by`. What was done behind that place is
        delivered again, what was not done before it never is, and what is parked behind it is parked no
        more. Handlers under way are stopped, as when their engine closes, and what they do is not marked
        any more. Workers go on at the new place by themselves, within about a second.

        `dry_run`: only say what it would do. Raises PositionGone for a place whose events were let go,
        SubscriptionNotFound, and StreamError for a position or an event that is not there.
        """
        row = await self._row()
        door = self._door()
        place = await place_before(door, self.stream, to, event=event, source=source)
        move = await door.read(lambda store: store.streams.weigh(row.number, place))
        if move is None:
            raise self._removed()
        if not dry_run:
            now_ms = door.clock.now_ms()
            gone = await door.write(
                lambda store: store.streams.seek(row.number, place, now_ms=now_ms, who=by, reason=reason)
            )
            if gone is None:
                raise self._removed()
            if gone > place:
                raise gone_at(self.stream, place, gone)
        return _seek(place, move, is_done=not dry_run)

    async def seeks(self, *, limit: int = 100) -> list[SeekNote]:
        """Where the handler has been sent, the latest first. Raises SubscriptionNotFound."""
        number = (await self._row()).number
        rows = await self._door().read(lambda store: store.streams.seeks(number, limit=limit))
        return [
            SeekNote(position_text(one.position + 1), moment(one.at_ms), one.who, one.reason) for one in rows
        ]

    async def remove(self) -> None:
        """Forget the handler's place, and what it has parked: for a handler that is gone for good.

        Else its stream keeps for ever what it has not done. Raises StreamError while a worker serves it,
        and SubscriptionNotFound.
        """
        row = await self._row()
        worker = await self._door().write(lambda store: store.streams.unsubscribe(row.number))
        if worker:
            raise StreamError(
                f"Worker {worker!r} serves {self.stream}/{self.name}: nothing was removed.",
                hint="Remove the handler from the code first, and deploy that.",
            )

    def _removed(self) -> SubscriptionNotFound:
        return SubscriptionNotFound(f"{self.stream}/{self.name} was removed meanwhile.")


def _seek(place: int, move: Move, *, is_done: bool) -> Seek:
    return Seek(
        position_text(place + 1), move.again, move.skipped, move.unparked, move.is_exact, is_done=is_done
    )
