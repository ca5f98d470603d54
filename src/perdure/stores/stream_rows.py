"""What there is of event streams, as it goes from one store to another: rows that are alike in all. Pure.

Law: a place goes as it is, since journals and idempotency keys have it. What a store
numbers for itself (streams, correlations) goes by its name; what can be made anew is
left out: leases and who serves, sums of sizes, what events are entered by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .moves import ROW_BYTES

Columns = tuple[Any, ...]


class RowKind(NamedTuple):
    """A table, and what of it is moved."""

    name: str
    types: str
    """Of the columns: (n)umbers, (t)exts and (b)ytes."""
    keys: tuple[int, ...]
    """By these columns the rows are in order; no two have the same."""
    first: Columns
    """Below the keys of every row."""
    compared: int
    """So many columns must be in one store what they are in the other."""

    def key_of(self, row: Columns) -> Columns:
        """The key of a row."""
        return tuple(row[column] for column in self.keys)


def _kind(name: str, types: str, keys: Sequence[int], *first: int | str, compared: int = 0) -> RowKind:
    return RowKind(name, types, tuple(keys), first, compared or len(types))


STREAM: Final = _kind("stream", "tnn", [0], "", compared=2)
"""name, gone, last: no event has ever stood above. Not compared: the last event may be damaged, and stay."""
SCHEMA: Final = _kind("schema", "ttntbnn", [0, 1, 2], "", "", 0)
"""stream, type, version, fingerprint, schema, at_ms, gone_to."""
SUBSCRIPTION: Final = _kind("subscription", "nttnntnntn", [0], 0)
"""number, stream, name, lanes, is_intake, other, status, status_at_ms, reason, edition."""
LANE: Final = _kind("lane", "nnnttnt", [0, 1], 0, 0)
"""subscription, lane, cursor, done (JSON), watch (JSON), generation, history (JSON)."""
LANE_TIME: Final = _kind("lane_time", "nnnnnnnnn", [0, 1, 2], 0, 0, 0)
"""subscription, lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor."""
SEEK: Final = _kind("seek", "nnnntt", [0], 0)
"""number, subscription, place, at_ms, who, reason."""
CORRELATION: Final = _kind("correlation", "ttt", [0, 1, 2], "", "", "")
"""stream, type, fields."""
AWAITING: Final = _kind("awaiting", "ntttttnn", [0, 1, 2, 3, 4], 0, "", "", "", "")
"""run, stream, type, fields, value, signal, after, wanted."""
DEAD: Final = _kind("dead", "nnntnnbnnnnn", [0, 1], 0, 0)
"""subscription, place, lane, key, kind, attempts, failure, at_ms, holds, due, redrives, redrive."""
DEAD_NOTE: Final = _kind("dead_note", "nnnnnttb", [0], 0)
"""number, subscription, place, deed, at_ms, who, reason, payload."""
EVENT_WINDOW: Final = _kind("event_window", "nntnnnntnbn", [0, 1, 2, 3, 10], 0, 0, "", 0, 0)
"""subscription, lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place."""
EVENT: Final = _kind("event", "tntttntnntbn", [0, 1], "", 0)
"""stream, place, id, source, type, version, key, time_ms, at_ms, trace, payload, is_resent."""

KINDS: Final = (
    STREAM, SCHEMA, SUBSCRIPTION, LANE, LANE_TIME, SEEK, CORRELATION, AWAITING, DEAD, DEAD_NOTE, EVENT_WINDOW,
    EVENT,
)  # fmt: skip
"""In the order in which they go: each may refer to those before it. Events, the most of it, come last."""


EVENT_NUMBER: Final = len(KINDS)


def kind_at(number: int) -> RowKind | None:
    """The kind with a number, from 1, as `MoveCursor` and `MovePage` have it; None behind the last."""
    return KINDS[number - 1] if number <= len(KINDS) else None


def bytes_of(row: Columns) -> int:
    """What a row counts for in a page."""
    return ROW_BYTES + sum(len(value) for value in row if isinstance(value, bytes))
