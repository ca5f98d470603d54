"""Windows in the file: read when a lane is taken up, and changed in the commit that moves the lane.

Law: what has changed of a lane's windows, and the results that came of it, are written
together, and only while the lane is the worker's. A row that the disk has changed is
refused: a count that is wrong would go on being wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import apsw

from ...core.event_time import LaneTime
from ...core.events import Append, Clash, NewEvent, Placed
from ...core.windows import LaneRows, WindowChange, WindowRow
from ...errors import StoreCorrupt
from . import blobs
from .checksums import checksum
from .connection import Row
from .statements import SQL

_IS_OURS = SQL["is_lane_ours"]
_UPSERT_LANE = SQL["upsert_lane_time"]
_UPSERT = SQL["upsert_window"]
_REMOVE = SQL["remove_window"]
_LANES = SQL["lane_times_of"]
_WINDOWS = SQL["windows_of"]
_COUNT_OPEN = SQL["count_open_windows"]

_STATE = 9
"""The column of a window that is a payload."""

AppendNow = Callable[[apsw.Connection, Sequence[Append]], list[list[Placed] | Clash]]


def write_windows(
    connection: apsw.Connection, changes: Sequence[WindowChange], *, lease: int, append: AppendNow
) -> None:
    """Write what has changed of the windows of lanes, but of those that are another's now, or elsewhere."""
    for change in changes:
        place = (change.subscription, change.lane)
        if connection.execute(_IS_OURS, (*place, change.generation, lease)).get is None:
            continue
        times = [(*place, side, *time) for side, time in enumerate(change.times)]
        blobs.write_rows(connection, _UPSERT_LANE, times, ())
        rows = [(*place, *row[:5], json.dumps(row.replaces), *row[6:]) for row in change.windows]
        blobs.write_rows(connection, _UPSERT, rows, (_STATE,))
        connection.executemany(_REMOVE, [(*place, *gone) for gone in change.gone])
        for stream, events in change.results:
            _append_results(connection, Append(stream, events), append)


def _append_results(connection: apsw.Connection, results: Append, append: AppendNow) -> None:
    """Append each. One that is there with other content, of a lane read anew, gets an id beside it."""
    (outcome,) = append(connection, [results])
    if isinstance(outcome, Clash):
        events: list[NewEvent] = list(results.events)
        clash = events[outcome.place]
        events[outcome.place] = clash._replace(id=f"{clash.id}~{outcome.position}")
        _append_results(connection, Append(results.stream, events), append)


def read_windows(connection: apsw.Connection, subscription: int, *, url: str) -> list[LaneRows]:
    """What is kept of a subscription's windows, by lane. Raises StoreCorrupt."""
    by_lane: dict[int, list[WindowRow]] = {}
    rows: Any = connection.execute(_WINDOWS, (subscription,)).fetchall()
    for row in rows:
        columns: list[Any]
        _, lane, *columns = blobs.whole(connection, _checked(row, url=url), (_STATE,), url=url)
        columns[5] = tuple((start_ms, revision) for start_ms, revision in json.loads(columns[5]))
        by_lane.setdefault(lane, []).append(WindowRow._make(columns))
    times: dict[int, list[LaneTime]] = {}
    for lane, _, time in _lane_times(connection, subscription, url=url):
        times.setdefault(lane, []).append(time)
    return [LaneRows(lane, mine, by_lane.get(lane, [])) for lane, mine in times.items()]


def read_open_windows(
    connection: apsw.Connection, subscription: int, *, url: str
) -> list[tuple[LaneTime, int]]:
    """How far event time is in each lane, and how many windows have not been told as they are; by side."""
    rows: Any = connection.execute(_COUNT_OPEN, (subscription,)).fetchall()
    counts: dict[tuple[int, int], int] = {(lane, side): count for lane, side, count in rows}
    times = _lane_times(connection, subscription, url=url)
    return [(time, counts.get((lane, side), 0)) for lane, side, time in times]


def begin_other_anew(connection: apsw.Connection, subscription: int, *, url: str) -> None:
    """Let a join begin anew in its second stream, with the first event that this keeps."""
    rows: Any = connection.execute(_LANES, (subscription,)).fetchall()
    checked = [_checked(row, url=url) for row in rows]
    anew = [(*row[:-1], 0) for row in checked if row[2] == 1]
    blobs.write_rows(connection, _UPSERT_LANE, anew, ())


def _lane_times(
    connection: apsw.Connection, subscription: int, *, url: str
) -> list[tuple[int, int, LaneTime]]:
    rows: Any = connection.execute(_LANES, (subscription,)).fetchall()
    checked = [_checked(row, url=url) for row in rows]
    return [(lane, side, LaneTime(*columns)) for _, lane, side, *columns in checked]


def wrong_window(row: Row, *, url: str) -> StoreCorrupt | None:
    """What is wrong with a row of either table; None when nothing is."""
    *columns, crc = row
    if crc == checksum(columns):
        return None
    is_window = isinstance(row[2], str)
    what = f"the window of {row[2]!r} from {row[3]}" if is_window else f"the time of lane {row[1]}"
    return StoreCorrupt(
        f"In store '{url}' {what} of subscription number {row[0]} is damaged: it does not fit its checksum.",
        hint="Restore a backup of the file. `perdure doctor` names all that is damaged.",
    )


def _checked(row: Row, *, url: str) -> Row:
    wrong = wrong_window(row, url=url)
    if wrong is not None:
        raise wrong
    return row[:-1]
