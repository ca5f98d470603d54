"""Says who holds events back, when a reader has waited for them for some seconds.

On PostgreSQL an event is read when none can come before it any more: a transaction that was open
when it was appended, and has written something, holds all readers of all streams back until it ends.
One that is left open does so for ever, and nothing else would tell of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

from ..core.standing import Holdup
from ..errors import StreamError
from .clock import Clock
from .reads import Reads

_PATIENCE_MS = 5_000
_LOOKS_AGAIN_S = 2.0
"""A reader that waits looks more often: one that has not did something else meanwhile."""
_SAID_EVERY_MS = 60_000


class Horizon:
    """What the readers of a worker wait for."""

    def __init__(self, clock: Clock, reads: Reads, complain: Callable[[BaseException, str], None]) -> None:
        """`complain(error, doing)` says it where nobody waits for an answer."""
        self._clock = clock
        self._reads = reads
        self._complain = complain
        self._loop = asyncio.get_running_loop()
        self._waits: WeakKeyDictionary[object, tuple[int, int, float]] = WeakKeyDictionary()
        """By reader: where it waits, since when, and when it looked last (time of the loop)."""
        self._asked_at_ms: int | None = None

    def note(self, reader: object, stream: str, *, after: int, is_held_back: bool) -> None:
        """A reader has looked: it has read up to `after`, and may, or may not, be held back there."""
        if not is_held_back:
            self._waits.pop(reader, None)
            return
        now_ms = self._clock.now_ms()
        now_s = self._loop.time()
        where, since_ms, looked_s = self._waits.get(reader, (after, now_ms, now_s))
        if where != after or now_s - looked_s > _LOOKS_AGAIN_S:
            since_ms = now_ms
        self._waits[reader] = (after, since_ms, now_s)
        was_said = self._asked_at_ms is not None and now_ms - self._asked_at_ms < _SAID_EVERY_MS
        if now_ms - since_ms >= _PATIENCE_MS and not was_said:
            self._asked_at_ms = now_ms
            self._reads.ask(
                lambda store: store.streams.holdup(),
                lambda found: self._say(stream, now_ms - since_ms, found),
            )

    def _say(self, stream: str, waited_ms: int, found: Holdup | Exception | None) -> None:
        doing = f"reading stream {stream!r}"
        if isinstance(found, Exception):
            self._complain(found, doing)
            return
        what = "a transaction of a role whose sessions this one may not see" if found is None else str(found)
        hint = "Let its role see all sessions: GRANT pg_read_all_stats." if found is None else found.hint
        self._complain(
            StreamError(
                f"its next events have waited for {waited_ms // 1000} s for {what}: it was open when they "
                "were appended, and could still append some that come before. Until it ends no handler is "
                "given any event that was appended since, of any stream.",
                hint=hint,
            ),
            doing,
        )
