"""How far the subscriptions to streams are, and how they got there. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .events import LanePast, SubscriptionRow


class Head(NamedTuple):
    """An event without what it says."""

    position: int
    key: str
    at_ms: int
    time_ms: int


class LaneStand(NamedTuple):
    """A lane as it stands in the store."""

    lane: int
    cursor: int
    history: tuple[LanePast, ...]
    worker: str
    """Whose it is; empty: nobody's."""
    behind: int
    """How many of its events are not done."""
    oldest_at_ms: int | None
    """When the first event that is not done was appended; None when there is none."""
    oldest_time_ms: int | None
    """When that one happened."""


class SubscriptionStand(NamedTuple):
    """A subscription as it stands in the store."""

    row: SubscriptionRow
    gone: int
    """Events of the stream up to here have been let go."""
    lanes: Sequence[LaneStand]
    is_exact: bool
    """Whether what is behind was counted; else it is estimated, from what is left of the stream."""
    parked: int
    """How many events are parked."""
    parked_at_ms: int | None
    """Since when the oldest of them is."""
    appended: int
    """How many events were appended in the time that was asked for."""
    other_gone: int = 0
    """Of the second stream of a join: events up to here have been let go."""
    other_cursor: int = 0
    """And how far the lane is there that is least far; 0: it begins with the first that is kept."""


class Move(NamedTuple):
    """What sending a subscription to a place does."""

    again: int
    """Events that are done, and will be delivered again."""
    skipped: int
    """Events that are not done, and will not be delivered."""
    unparked: int
    """Of `again`, those that are parked: they are parked no more."""
    is_exact: bool
    """Whether the first two were counted; else they are estimated."""


class StreamSpan(NamedTuple):
    """What a stream keeps; and where, between, those events begin that were appended since some time."""

    gone: int
    """Events up to here have been let go."""
    earliest: int
    """The position before the first event that is kept."""
    since: int
    """The position before the first event that was appended since; `last` if none was."""
    last: int
    """The last position, of those below which none will come any more."""


class Holdup(NamedTuple):
    """A transaction on PostgreSQL that holds events back: none that was appended since is delivered."""

    pid: int
    """Of its server process; 0: it was prepared, and is nobody's."""
    application: str
    """The `application_name` of its session; of one that was prepared, its name."""
    user: str
    database: str
    state: str
    """As `pg_stat_activity` has it: `idle in transaction` waits for its client."""
    seconds: float
    """How long it is open."""

    @property
    def hint(self) -> str:
        """How to end it."""
        if not self.pid:
            return f"End it: ROLLBACK PREPARED '{self.application}', or COMMIT PREPARED."
        return (
            f"End it: SELECT pg_terminate_backend({self.pid}). So that it does not come again, set "
            "idle_in_transaction_session_timeout for its role."
        )

    def __str__(self) -> str:
        whose = f"pid {self.pid}" if self.pid else "nobody, prepared"
        return (
            f"the transaction of {whose} (application {self.application!r}, user {self.user!r}, database "
            f"{self.database!r}, {self.state} for {self.seconds:.0f} s)"
        )


class SeekRow(NamedTuple):
    """That somebody has sent a subscription to a place."""

    position: int
    """It went on behind this one."""
    at_ms: int
    who: str
    reason: str


class KeepRule(NamedTuple):
    """For how long a stream keeps its events."""

    stream: str
    ms: int | None
    """So long after they were appended; None: for ever."""
    bytes_max: int | None
    """As long as the payloads of the stream are no more than this; None: without limit."""
    waits: bool
    """Whether what some subscription has not done is kept in any case."""
