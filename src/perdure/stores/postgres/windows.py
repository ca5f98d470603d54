"""Windows in the database: read when a lane is taken up, and changed in the commit that moves the lane.

Law: what has changed of a lane's windows, and the results that came of it, are written
together, and only while the lane is the worker's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from ...core.event_time import LaneTime
from ...core.events import Append, Clash
from ...core.windows import LaneRows, WindowChange, WindowRow
from .appending import Appends
from .arrays import numbers, payloads, texts
from .connection import Database
from .link import Link

Send = Callable[[Link, Sequence[Append]], Appends]


class Windows:
    """The windows that a batch changes, on their way."""

    def __init__(self, link: Link, changes: Sequence[WindowChange], *, lease: int, send: Send) -> None:
        """Ask which of the lanes are still the worker's; in a pipeline, as part of it."""
        self._link = link
        self._changes = changes
        self._send = send
        subscriptions, lanes, generations = zip(*sorted({_place(change) for change in changes}), strict=True)
        self._asked = link.run(
            "lanes_of_lease", numbers(subscriptions), numbers(lanes), numbers(generations), lease
        )

    def finish(self) -> None:
        """Write what is of these."""
        ours = set(self._asked.fetchall())
        changes = [change for change in self._changes if _place(change) in ours]
        results = results_of(changes)
        appends = None
        with self._link.sending():
            self._put_times(changes)
            self._put_windows(changes)
            if results:
                appends = self._send(self._link, results)
        while appends is not None:
            # One that is there with other content, of a lane read anew, gets an id beside it.
            outcomes = zip(results, appends.finish(), strict=True)
            results = [
                _renamed(append, outcome) for append, outcome in outcomes if isinstance(outcome, Clash)
            ]
            appends = self._send(self._link, results) if results else None

    def _put_times(self, changes: Sequence[WindowChange]) -> None:
        rows = {
            (*change[:2], side): (*change[:2], side, *time)
            for change in changes
            for side, time in enumerate(change.times)
        }
        if rows:
            self._link.run("put_lane_times", *map(numbers, zip(*rows.values(), strict=True)))

    def _put_windows(self, changes: Sequence[WindowChange]) -> None:
        rows: dict[tuple[int, int, str, int, int], WindowRow | None] = {}
        for change in changes:  # the last one stands
            rows.update({(*change[:2], row.key, row.start_ms, row.place): row for row in change.windows})
            rows.update({(*change[:2], *gone): None for gone in change.gone})
        kept = [
            (*place[:2], *row[:5], json.dumps(row.replaces), *row[6:])
            for place, row in rows.items()
            if row is not None
        ]
        gone = [place for place, row in rows.items() if row is None]
        if kept:
            subscriptions, lanes, keys, starts, ends, revisions, told, replaces, events, states, places = zip(
                *kept, strict=True
            )
            self._link.run(
                "put_windows", numbers(subscriptions), numbers(lanes), texts(keys), numbers(starts),
                numbers(ends), numbers(revisions), numbers(told), texts(replaces), numbers(events),
                payloads(states), numbers(places),
            )  # fmt: skip
        if gone:
            subscriptions, lanes, keys, starts, places = zip(*gone, strict=True)
            self._link.run(
                "remove_windows",
                numbers(subscriptions),
                numbers(lanes),
                texts(keys),
                numbers(starts),
                numbers(places),
            )


def _place(change: WindowChange) -> tuple[int, int, int]:
    return change.subscription, change.lane, change.generation


def _renamed(append: Append, clash: Clash) -> Append:
    events = list(append.events)
    one = events[clash.place]
    events[clash.place] = one._replace(id=f"{one.id}~{clash.position}")
    return Append(append.stream, events)


def results_of(changes: Iterable[WindowChange]) -> list[Append]:
    """What is to be appended with these."""
    return [Append(*told) for change in changes for told in change.results]


def read_windows(database: Database, subscription: int) -> list[LaneRows]:
    """What is kept of a subscription's windows, by lane."""
    times, windows = database.snapshot(("lane_times_of", subscription), ("windows_of", subscription))
    by_lane: dict[int, list[WindowRow]] = {}
    for lane, *columns in windows:
        columns[5] = tuple((start_ms, revision) for start_ms, revision in json.loads(columns[5]))
        by_lane.setdefault(lane, []).append(WindowRow._make(columns))
    of_lanes: dict[int, list[LaneTime]] = {}
    for lane, _, *time in times:
        of_lanes.setdefault(lane, []).append(LaneTime(*time))
    return [LaneRows(lane, mine, by_lane.get(lane, [])) for lane, mine in of_lanes.items()]


def read_open_windows(database: Database, subscription: int) -> list[tuple[LaneTime, int]]:
    """How far event time is in each lane, and how many windows have not been told as they are; by side."""
    times, counted = database.snapshot(("lane_times_of", subscription), ("count_open_windows", subscription))
    counts: dict[tuple[int, int], int] = {(lane, side): count for lane, side, count in counted}
    return [(LaneTime(*time), counts.get((lane, side), 0)) for lane, side, *time in times]
