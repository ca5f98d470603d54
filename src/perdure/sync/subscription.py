"""`Subscription` for code without asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ..blocks.shadow import Shadow
from ..streaming import subscription as awaiting
from ..streaming.event_time import EventTime
from ..streaming.forking import Comparison
from ..streaming.lagging import Lag
from ..streaming.parked import ParkedDetails, ParkedEvent, Redriving, SubscriptionStatus
from ..streaming.seeking import Seek, SeekNote
from .life import Ask


class Subscription:
    """A handle on the place of a handler in its stream; made by `client.subscription`."""

    def __init__(self, ask: Ask, subscription: awaiting.Subscription) -> None:
        self._ask = ask
        self._subscription = subscription
        self.stream = subscription.stream
        """The stream's name."""
        self.name = subscription.name
        """The handler's name."""

    def status(self) -> SubscriptionStatus:
        """Whether it goes on, is suspended or stopped, and how much is parked."""
        return self._ask("status()", lambda _: self._subscription.status())

    def event_time(self) -> EventTime:
        """How far event time is, of one that was made by `Stream.window`. Raises SubscriptionNotFound."""
        return self._ask("event_time()", lambda _: self._subscription.event_time())

    def lag(self) -> Lag:
        """How far the handler is behind, and whether it gets on; also while no worker runs."""
        return self._ask("lag()", lambda _: self._subscription.lag())

    def seek(
        self,
        to: str | datetime = "",
        *,
        event: str | None = None,
        source: str = "",
        dry_run: bool = False,
        reason: str = "",
        by: str = "",
    ) -> Seek:
        """Let the handler go on elsewhere: at `"earliest"`, `"latest"`, a position, a time, or an event.

        As the awaiting `seek`. It is on disk when this returns; workers follow within about a second.
        """
        return self._ask(
            "seek()",
            lambda _: self._subscription.seek(
                to, event=event, source=source, dry_run=dry_run, reason=reason, by=by
            ),
        )

    def seeks(self, *, limit: int = 100) -> list[SeekNote]:
        """Where the handler has been sent, the latest first. Raises SubscriptionNotFound."""
        return self._ask("seeks()", lambda _: self._subscription.seeks(limit=limit))

    def fork(self, name: str, *, begin: str | datetime = "earliest") -> Shadow[Any]:
        """A shadow of the handler, whose effects are held back; it is served while you hold it."""
        return self._ask("fork()", lambda _: self._subscription.fork(name, begin=begin))

    def compare(self, *, limit: int = 100) -> Comparison:
        """What the shadow would have done so far, beside what is in the store now."""
        return self._ask("compare()", lambda _: self._subscription.compare(limit=limit))

    def remove(self) -> None:
        """Forget the handler's place, and what it has parked: for a handler that is gone for good.

        Raises StreamError while a worker serves it, and SubscriptionNotFound.
        """
        self._ask("remove()", lambda _: self._subscription.remove())

    def parked(
        self,
        *,
        key: str | None = None,
        reason: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[ParkedEvent]:
        """The events that are parked, in their order, `limit` at most. Raises SubscriptionNotFound.

        `key` and `reason` (`failed`, `unreadable`, `crashed`, `behind`) filter; `after` is the last
        position of the page before.
        """
        return self._ask(
            "parked()",
            lambda _: self._subscription.parked(key=key, reason=reason, after=after, limit=limit),
        )

    def show(self, position: str) -> ParkedDetails:
        """One parked event: its id, type, payload, last error, what people did to it. Raises NotParked."""
        return self._ask("show()", lambda _: self._subscription.show(position))

    def edit(self, position: str, data: Any, *, reason: str, by: str = "") -> None:
        """Deliver `data` in place of the event's own payload when it is redriven; the original is kept.

        Raises as the awaiting `edit`: NotParked, NotSerialisable, NotDecodable.
        """
        self._ask("edit()", lambda _: self._subscription.edit(position, data, reason=reason, by=by))

    def redrive(
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
        """Have parked events delivered again: those at `positions`, of a `key`, or all.

        The options are those of the awaiting `redrive`. Returns when all are handed over to the workers;
        one with a `rate`, or of much, takes its time.
        """
        return self._ask(
            "redrive()",
            lambda _: self._subscription.redrive(
                positions,
                key=key,
                dry_run=dry_run,
                rate=rate,
                max_failures=max_failures,
                reason=reason,
                by=by,
            ),
        )

    def discard(
        self,
        positions: Iterable[str] | str | None = None,
        *,
        key: str | None = None,
        reason: str,
        by: str = "",
    ) -> list[str]:
        """Give parked events up for good: those at `positions`, or of a `key`; gives their positions.

        Raises NotParked if there is none.
        """
        return self._ask(
            "discard()", lambda _: self._subscription.discard(positions, key=key, reason=reason, by=by)
        )

    def resume(self, *, reason: str = "") -> bool:
        """Let the handler go on, on all workers, if it was stopped or is suspended. Whether it was."""
        return self._ask("resume()", lambda _: self._subscription.resume(reason=reason))

    def stop(self, *, reason: str) -> bool:
        """Let the handler begin no event, on any worker, until somebody resumes it. Whether it went on."""
        return self._ask("stop()", lambda _: self._subscription.stop(reason=reason))

    def __repr__(self) -> str:
        return repr(self._subscription)
