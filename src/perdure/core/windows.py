"""Windows over the time at which events happened: what is open, what closes, what is late. Pure.

Each lane of a stream has a *watermark*: how far event time is said to be complete.
It follows the latest event at a distance, and when no later one comes it goes on
with the clock; it never goes back. A window closes, and its result is told, when
the watermark reaches its end.

The law: what is told of a lane is a function of its events in their order, of when they happened
and of when they were appended. Who works it out, when, and after how many crashes,
changes nothing: even silence is measured from one append to the next.

Times are Unix milliseconds. A state is bytes here: it is the caller's `fold` that
knows what they are, so that a state that was kept and one that was not are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from .event_time import LATE, EventClock, LaneTime, TimeRules
from .events import NewEvent

Fold = Callable[[bytes | None], bytes]
"""Adds the event in hand to the state of a window, or to none."""
Merge = Callable[[bytes, bytes], bytes]
"""Makes one state of those of two sessions, the earlier one first."""


@dataclass(frozen=True, slots=True)
class WindowRules(TimeRules):
    """How events are put into windows, and how long is waited for them."""

    size_ms: int
    """Of a window; of sessions, the gap that ends one."""
    every_ms: int
    """Windows begin at its multiples. 0: sessions."""
    lateness_ms: int
    """How long a closed window still takes events, and is told anew. 0: not at all."""


class WindowRow(NamedTuple):
    """A window, as it is kept."""

    key: str
    start_ms: int
    end_ms: int
    """Exclusive. Of a session: its last event, and the gap."""
    revision: int
    """How often it was told; of a session, at most how often one of its parts was. Of an event that waits
    in a join: when it was appended."""
    is_told: int
    """Whether it was told as it is."""
    replaces: tuple[tuple[int, int], ...]
    """(start, revision) of what was told of its parts, and is not right any more."""
    events: int
    """How many it has."""
    state: bytes | None
    """None in a session that takes no more events, and only tells late ones that they are late."""
    place: int = 0
    """Of an event that waits in a join: twice its position, and one more for the other stream."""


class LaneRows(NamedTuple):
    """What is kept of the windows of a lane."""

    lane: int
    times: Sequence[LaneTime]
    """One; of a join, one of each stream."""
    windows: Sequence[WindowRow]


class WindowChange(NamedTuple):
    """What a commit changes of the windows of a lane; or nothing, if the lane is another's or elsewhere."""

    subscription: int
    lane: int
    times: Sequence[LaneTime]
    windows: Sequence[WindowRow]
    gone: Sequence[tuple[str, int, int]]
    """(key, start, place) of windows that are kept no longer."""
    results: Sequence[tuple[str, Sequence[NewEvent]]]
    """(stream, events): what is to be appended."""
    generation: int = 0
    """Of the lane, as the worker knows it."""


class Told(NamedTuple):
    """A result: a window closed, or changed after that."""

    key: str
    start_ms: int
    end_ms: int
    revision: int
    """From 1."""
    replaces: tuple[tuple[int, int], ...]
    """(start, revision) of the results in whose place it comes."""
    events: int
    state: bytes


class Missed(NamedTuple):
    """An event that is in no window, or not in all of its own."""

    reason: str
    windows: tuple[tuple[int, int], ...] = ()
    """(start, end) of those that are closed."""
    watermark_ms: int = 0
    """Of one that is late: where the watermark was."""


class _Window:
    """One window of a key."""

    __slots__ = ("end_ms", "events", "is_told", "replaces", "revision", "start_ms", "state")

    def __init__(self, start_ms: int, end_ms: int) -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.revision = 0
        self.is_told = False
        self.replaces: tuple[tuple[int, int], ...] = ()
        self.events = 0
        self.state: bytes | None = None


class LaneWindows:
    """The windows of one lane. Its events are given to it in their order, each once."""

    def __init__(self, rules: WindowRules, time: LaneTime, rows: Iterable[WindowRow], merge: Merge) -> None:
        self._rules = rules
        self._merge = merge
        self._clock = EventClock(rules, time)
        is_session = not rules.every_ms
        # An event that may begin a session may also touch one that ended up to a gap before.
        self._keep_ms = rules.lateness_ms + (rules.size_ms if is_session else 0)
        self._windows: dict[str, dict[int, _Window]] = {}
        self._moments: list[tuple[int, int, str, int]] = []
        """(watermark, start, key, end): when it is there, something is to be done about that window, unless
        it has another end by then."""
        self._changed: set[tuple[str, int]] = set()
        self._told: list[Told] = []
        for row in rows:
            window = _Window(row.start_ms, row.end_ms)
            window.revision, window.is_told = row.revision, bool(row.is_told)
            window.replaces, window.events, window.state = row.replaces, row.events, row.state
            self._windows.setdefault(row.key, {})[row.start_ms] = window
            self._expect(row.key, window, self._keep_ms if window.is_told else 0)

    @property
    def time(self) -> LaneTime:
        """How far event time is."""
        return self._clock.time

    # -- what happens ----------------------------------------------------------------------------

    def add(self, key: str, time_ms: int | None, at_ms: int, fold: Fold) -> Missed | None:
        """Put an event into its windows; what `fold` raises comes out, and then no window has changed."""
        if self._clock.pass_time(at_ms):
            self._close()
        wrong = self._clock.refuse(key, time_ms, at_ms)
        if wrong:
            return Missed(wrong)
        assert time_ms is not None, "else it is refused"
        add = self._add_to_windows if self._rules.every_ms else self._add_to_session
        missed = add(key, time_ms, fold)
        if self._clock.follow(time_ms, at_ms):
            self._close()
        if missed:
            self._clock.late += 1
            return Missed(LATE, missed, self._clock.watermark_ms or 0)
        return None

    def pass_time(self, now_ms: int) -> bool:
        """Nothing else was appended until now: do what is due after long silence; whether anything was."""
        is_due = False
        while (moment_ms := self._next_moment_ms()) is not None and self._clock.pass_time_to(
            moment_ms, now_ms
        ):
            is_due = True
            self._close()
        return is_due

    def next_ms(self) -> int | None:
        """When silence will close a window, or end what is kept of one; None if none waits for it."""
        moment_ms = self._next_moment_ms()
        return None if moment_ms is None else self._clock.silence_until_ms(moment_ms)

    def take_told(self) -> list[Told]:
        """What has been told since this was asked last, in order."""
        told, self._told = self._told, []
        return told

    def take_changed(self) -> tuple[list[WindowRow], list[tuple[str, int, int]]]:
        """Windows that have changed since this was asked last, and those that are kept no longer."""
        rows: list[WindowRow] = []
        gone: list[tuple[str, int, int]] = []
        for key, start_ms in sorted(self._changed):
            window = self._windows.get(key, {}).get(start_ms)
            if window is None:
                gone.append((key, start_ms, 0))
            else:
                rows.append(_row_of(key, window))
        self._changed.clear()
        return rows, gone

    # -- into windows ----------------------------------------------------------------------------

    def _is_closed(self, end_ms: int, longer_ms: int = 0) -> bool:
        return self._clock.is_past(end_ms + longer_ms)

    def _add_to_windows(self, key: str, time_ms: int, fold: Fold) -> tuple[tuple[int, int], ...]:
        """Gives those that are closed for it."""
        size_ms, every_ms = self._rules.size_ms, self._rules.every_ms
        first = time_ms - time_ms % every_ms
        starts = sorted(range(first, time_ms - size_ms, -every_ms))
        late_ms = self._rules.lateness_ms
        missed = tuple((at, at + size_ms) for at in starts if self._is_closed(at + size_ms, late_ms))
        windows = self._windows.get(key, {})
        states: list[tuple[int, bytes]] = []
        for start_ms in starts[len(missed) :]:
            known = windows.get(start_ms)
            states.append((start_ms, fold(None if known is None else known.state)))
        for start_ms, state in states:
            window = windows.get(start_ms) or self._make(key, start_ms, start_ms + size_ms)
            self._put(key, window, state)
        return missed

    def _add_to_session(self, key: str, time_ms: int, fold: Fold) -> tuple[tuple[int, int], ...]:
        end_ms, late_ms = time_ms + self._rules.size_ms, self._rules.lateness_ms
        windows = self._windows.get(key, {})
        touched = sorted(
            (one for one in windows.values() if time_ms < one.end_ms and one.start_ms < end_ms),
            key=lambda one: one.start_ms,
        )
        begins = not touched or time_ms < touched[0].start_ms
        if begins and self._is_closed(end_ms, late_ms):
            return ((time_ms, end_ms),)  # what it may have been a part of is not known any more
        if not touched:
            state = fold(None)
            self._put(key, self._make(key, time_ms, end_ms), state)
            return ()
        missed = tuple((one.start_ms, one.end_ms) for one in touched if self._is_closed(one.end_ms, late_ms))
        if missed:
            return missed
        state = fold(self._merged([one.state for one in touched]))
        for one in touched:
            self._drop(key, one)
        merged = self._make(
            key, min(time_ms, touched[0].start_ms), max(end_ms, *(one.end_ms for one in touched))
        )
        merged.events = sum(one.events for one in touched)
        merged.revision = max(one.revision for one in touched)
        merged.replaces = tuple(part for one in touched for part in _right_of(one))
        self._put(key, merged, state)
        return ()

    def _merged(self, states: Sequence[bytes | None]) -> bytes | None:
        whole = states[0]
        for state in states[1:]:
            assert whole is not None, "a session that takes events has a state"
            assert state is not None, "and so have those that become one with it"
            whole = self._merge(whole, state)
        return whole

    def _make(self, key: str, start_ms: int, end_ms: int) -> _Window:
        window = _Window(start_ms, end_ms)
        self._windows.setdefault(key, {})[start_ms] = window
        if not self._is_closed(end_ms):
            self._expect(key, window, 0)
        return window

    def _put(self, key: str, window: _Window, state: bytes) -> None:
        """It has one event more."""
        window.replaces = _right_of(window)
        window.state, window.is_told = state, False
        window.events += 1
        self._changed.add((key, window.start_ms))
        if self._is_closed(window.end_ms):
            self._tell(key, window)

    def _drop(self, key: str, window: _Window) -> None:
        windows = self._windows[key]
        del windows[window.start_ms]
        if not windows:
            del self._windows[key]
        self._changed.add((key, window.start_ms))

    # -- the watermark ---------------------------------------------------------------------------

    def _expect(self, key: str, window: _Window, longer_ms: int) -> None:
        heappush(self._moments, (window.end_ms + longer_ms, window.start_ms, key, window.end_ms))

    def _is_valid(self, moment: tuple[int, int, str, int]) -> bool:
        _, start_ms, key, end_ms = moment
        window = self._windows.get(key, {}).get(start_ms)
        return window is not None and window.end_ms == end_ms

    def _next_moment_ms(self) -> int | None:
        """Where the watermark has to be for what is due next; None if nothing waits for it."""
        while self._moments and not self._is_valid(self._moments[0]):
            heappop(self._moments)
        return self._moments[0][0] if self._moments else None

    def _close(self) -> None:
        """Do what is due where the watermark is now."""
        while self._moments and self._clock.is_past(self._moments[0][0]):
            moment = heappop(self._moments)
            if not self._is_valid(moment):
                continue
            window = self._windows[moment[2]][moment[1]]
            if not window.is_told:
                self._tell(moment[2], window)
            elif self._is_closed(window.end_ms, self._keep_ms):
                self._drop(moment[2], window)

    def _tell(self, key: str, window: _Window) -> None:
        """Its result is right as far as is known."""
        assert window.state is not None, "a window that has events has a state"
        window.revision += 1
        window.is_told = True
        self._told.append(
            Told(
                key, window.start_ms, window.end_ms, window.revision, window.replaces, window.events,
                window.state,
            )
        )  # fmt: skip
        window.replaces = ()
        self._changed.add((key, window.start_ms))
        if self._is_closed(window.end_ms, self._keep_ms):
            self._drop(key, window)
            return
        if not self._rules.lateness_ms:
            window.state = None  # it takes no more events
        self._expect(key, window, self._keep_ms)


def _right_of(window: _Window) -> tuple[tuple[int, int], ...]:
    """What stands of what was told of a window: its last result, or those that its next one replaces."""
    return ((window.start_ms, window.revision),) if window.is_told else window.replaces


def _row_of(key: str, window: _Window) -> WindowRow:
    return WindowRow(
        key, window.start_ms, window.end_ms, window.revision, int(window.is_told), window.replaces,
        window.events, window.state,
    )  # fmt: skip
