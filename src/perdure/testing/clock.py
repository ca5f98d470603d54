"""A clock that stands still until a test moves it.

`advance` lets time pass: it stops at each moment for which something waits, in
order, and lets the engine get on before it goes further. `jump` sets the clock,
as a person or a time server would: what is due by then comes all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush

START_MS = 1_800_000_000_000
"""15 January 2027: after the clock of any machine that runs the tests, so that a mix-up shows."""

_TURNS = 20


async def loop_turn() -> None:
    """Let all that is ready on the loop run once."""
    turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: turned.done() or turned.set_result(None))
    await turned


class ManualClock:
    """A `Clock` whose time is in the test's hands."""

    def __init__(self, now_ms: int = START_MS, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """`loop`: where wake-up calls come; by default the one on which the first is asked for."""
        self._loop = loop
        self._now_ms = now_ms
        self._armed: list[_ManualArmed] = []
        self._made = 0
        self.settle: Callable[[], Awaitable[None]] = _turn_for_a_while
        """Waits until the engine has nothing to do; the harness puts its own here."""
        self.next_elsewhere: Callable[[], int | None] = lambda: None
        """The next moment that is known elsewhere than here: runs asleep in the store."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where wake-up calls come."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def now_ms(self) -> int:
        """The time that the test has set, Unix milliseconds."""
        return self._now_ms

    def arm(self, at_ms: int, callback: Callable[[], object], *, background: bool = False) -> _ManualArmed:
        """Call back when the time is moved to `at_ms` or past it; soon, if it is there already."""
        self._made += 1
        armed = _ManualArmed(self, at_ms, callback, background, made=self._made)
        if at_ms <= self._now_ms:
            armed.fire()
        else:
            heappush(self._armed, armed)
        return armed

    def next_ms(self) -> int | None:
        """The next moment for which something waits; None when nothing waits for time."""
        moments = [
            armed.at_ms for armed in self._armed if armed.callback is not None and not armed.background
        ]
        elsewhere = self.next_elsewhere()
        if elsewhere is not None and elsewhere > self._now_ms:
            moments.append(elsewhere)
        return min(moments, default=None)

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, moment by moment."""
        until_ms = self._now_ms + round(seconds * 1000)
        await self.settle()
        while (moment := self.next_ms()) is not None and moment <= until_ms:
            self._set(moment)
            await self.settle()
        self._set(until_ms)
        await self.settle()

    async def advance_to_next(self) -> bool:
        """Let time pass until something is due. False when nothing waits for time."""
        moment = self.next_ms()
        if moment is None:
            return False
        self._set(moment)
        await self.settle()
        return True

    def jump(self, seconds: float) -> None:
        """Set the clock, forwards or backwards. What is due by then comes on the loop's next turn."""
        self._set(self._now_ms + round(seconds * 1000))

    def _set(self, now_ms: int) -> None:
        self._now_ms = now_ms
        while self._armed and (self._armed[0].callback is None or self._armed[0].at_ms <= now_ms):
            heappop(self._armed).fire()


class _ManualArmed:
    """A callback that waits for its time."""

    __slots__ = ("_handle", "_loop", "_made", "at_ms", "background", "callback")

    def __init__(
        self, clock: ManualClock, at_ms: int, callback: Callable[[], object], background: bool, *, made: int
    ) -> None:
        self._loop = clock.loop  # not the running loop: that may be a run's
        self.at_ms = at_ms
        self.background = background
        self.callback: Callable[[], object] | None = callback
        self._made = made
        self._handle: asyncio.Handle | None = None

    def __lt__(self, other: _ManualArmed) -> bool:
        return (self.at_ms, self._made) < (other.at_ms, other._made)

    def fire(self) -> None:
        """Its time has come: it runs on the loop's next turn."""
        callback, self.callback = self.callback, None
        if callback is not None:
            self._handle = self._loop.call_soon(callback)

    def cancel(self) -> None:
        """It will not run."""
        self.callback = None
        if self._handle is not None:
            self._handle.cancel()


async def _turn_for_a_while() -> None:
    for _ in range(_TURNS):
        await loop_turn()
