"""How far a subscription is, counted from the events that are left: what every store does alike.

So many events are counted at most. Of what stands beyond each lane has its share.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from ..core.events import LanePast
from ..core.standing import Head, LaneStand, Move
from .streams import lane_of

COUNTED_MAX = 10_000
NEARBY = 1_000
"""How many events before one that was found by its time are looked at, too."""
PASTS = 10
"""How many marks of a lane are kept: see `streaming/lagging.py`."""


class KeptLane(NamedTuple):
    """What a store keeps of a lane."""

    lane: int
    cursor: int
    done: tuple[int, ...]
    """Above the cursor, as stretches: from, to, from, to, both included."""
    history: tuple[LanePast, ...]
    worker: str
    """Whose it is; empty: nobody's."""

    def has_done(self, position: int) -> bool:
        """Whether an event of the lane is done, or parked."""
        at = bisect_left(self.done, position)
        return position <= self.cursor or at % 2 == 1 or (at < len(self.done) and self.done[at] == position)


class StreamLook(NamedTuple):
    """How a store looks at the events of one stream."""

    heads: Callable[[int, int, int], Sequence[Head]]
    """(after, until, limit): those above a position and up to another, in order."""
    heads_before: Callable[[int, int], Sequence[Head]]
    """(until, limit): the last ones up to a position, in order."""
    count_after: Callable[[int], int]
    """About how many there are above a position."""

    def next_head(self, position: int) -> Head | None:
        """The first one above a position."""
        heads = self.heads(position, END, 1)
        return heads[0] if heads else None


END = (1 << 63) - 1
"""Above every position."""


def stand_lanes(lanes: Sequence[KeptLane], gone: int, look: StreamLook) -> tuple[list[LaneStand], bool]:
    """Count what each lane has not done, and say whether all was counted."""
    heads = look.heads(max(gone, min(lane.cursor for lane in lanes)), END, COUNTED_MAX)
    is_exact = len(heads) < COUNTED_MAX
    behind = [0] * len(lanes)
    oldest: list[Head | None] = [None] * len(lanes)
    for head in heads:
        lane = lanes[number := lane_of(head, len(lanes))]
        if not lane.has_done(head.position):
            behind[number] += 1
            oldest[number] = oldest[number] or head
    stands: list[LaneStand] = []
    for lane, count, first in zip(lanes, behind, oldest, strict=True):
        rest, head = 0, first
        if not is_exact:
            beyond = max(heads[-1].position, lane.cursor)
            rest = round(look.count_after(beyond) / len(lanes))
            # Far behind the others: an event of some lane will do.
            head = first or look.next_head(beyond)
        at_ms, time_ms = (None, None) if head is None else (head.at_ms, head.time_ms)
        stands.append(
            LaneStand(lane.lane, lane.cursor, lane.history, lane.worker, count + rest, at_ms, time_ms)
        )
    return stands, is_exact


def stand_joined(
    stands: Sequence[LaneStand], cursors: Sequence[int], gone: int, look: StreamLook
) -> tuple[list[LaneStand], bool]:
    """The same of a join, with what is not done of its second stream, where its lanes are at `cursors`."""
    lanes = [KeptLane(one.lane, at, (), (), "") for one, at in zip(stands, cursors, strict=True)]
    others, is_exact = stand_lanes(lanes, gone, look)
    return [_with_other(one, other) for one, other in zip(stands, others, strict=True)], is_exact


def _with_other(lane: LaneStand, other: LaneStand) -> LaneStand:
    found = [one for one in (lane, other) if one.oldest_at_ms is not None]
    oldest = min(found, key=lambda one: one.oldest_at_ms or 0, default=lane)
    return lane._replace(
        behind=lane.behind + other.behind,
        oldest_at_ms=oldest.oldest_at_ms,
        oldest_time_ms=oldest.oldest_time_ms,
    )


def weigh_move(lanes: Sequence[KeptLane], position: int, gone: int, parked: int, look: StreamLook) -> Move:
    """What sending all lanes to a position does; `parked` are above it."""
    ends = [max(lane.done, default=lane.cursor) for lane in lanes]
    after, until = min(position, *(lane.cursor for lane in lanes)), max(position, *ends)
    heads = look.heads(max(gone, after), until, COUNTED_MAX)
    again = skipped = 0
    for head in heads:
        is_done = lanes[lane_of(head, len(lanes))].has_done(head.position)
        again += is_done and head.position > position
        skipped += not is_done and head.position <= position
    if len(heads) < COUNTED_MAX:
        return Move(again, skipped, parked, is_exact=True)
    counted_to = heads[-1].position
    for lane in lanes:
        again += _between(max(position, counted_to), lane.cursor, look) // len(lanes)
        skipped += _between(max(lane.cursor, counted_to), position, look) // len(lanes)
    return Move(again, skipped, parked, is_exact=False)


def _between(after: int, until: int, look: StreamLook) -> int:
    return max(0, look.count_after(after) - look.count_after(until)) if until > after else 0


def position_before(at_ms: int, *, gone: int, last: int, look: StreamLook) -> int:
    """The position before the first event that was appended at that time or later; `last` if none was.

    It is searched for by halves, since append times grow along a stream; and where clocks differ,
    among those that stand before what was found.
    """
    low, high = gone, last
    while low < high:
        middle = (low + high) // 2
        head = look.next_head(middle)
        if head is None or head.at_ms >= at_ms:
            high = middle
        else:
            low = head.position
    near = look.heads_before(low, NEARBY)
    first = next((head for head in near if head.position > gone and head.at_ms >= at_ms), None)
    first = first or look.next_head(low)
    return last if first is None else min(last, first.position - 1)


def remember_seek(lane: KeptLane, position: int, *, last: int, now_ms: int) -> tuple[LanePast, ...]:
    """A lane's past, with its being sent elsewhere, which counts as a mark."""
    handled = lane.history[-1].handled if lane.history else 0
    return (*lane.history[1 - PASTS :], LanePast(now_ms, position, last - position, handled))


def write_history(history: Sequence[LanePast]) -> str:
    """A lane's past, as its row has it."""
    return msgspec.json.encode(history).decode()


def read_history(text: str) -> tuple[LanePast, ...]:
    """The same, as it is read."""
    return tuple(LanePast._make(past) for past in json.loads(text))
