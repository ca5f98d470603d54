"""Writes a batch inside a transaction that someone else holds.

The order is that of the fields of `Batch`, with two exceptions. `ends` come first:
a run that continues as new ends and starts again in the same batch. And what is
`forgotten` goes before the records: a run that parks takes a failure back, and
moves what was recorded after it into its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import apsw

from ...core.records import Record, Status
from ..base import Batch, Committed, StartOutcome
from ..transactions import Handled, do_handlings, do_transactions
from .awaiting import leave
from .blobs import any_large, write_rows
from .checksums import with_checksums, with_end_checksums
from .dead import clear_dead, is_due, write_dead, write_watches
from .jobs import queue_jobs, withdraw_jobs
from .lending import lent, savepoint
from .messages import send_messages
from .starts import write_starts
from .statements import SQL
from .streams import append_events, lane_stand, write_lanes

_INSERT_RECORD = SQL["insert_record"]
_TOGETHER = 32
_INSERT_TOGETHER = _INSERT_RECORD + ", (?, ?, ?, ?, ?, ?, ?, ?)" * (_TOGETHER - 1)
_HAS_RECORD = SQL["has_record"]
_FORGET = SQL["forget_records"]
_FORGET_LENGTH = SQL["forget_length"]
_END = SQL["end_run"]
_WAKE = SQL["wake_run"]
_FREE = SQL["free_run"]
_STATE = SQL["upsert_state"]
_ATTEMPT = SQL["upsert_attempt"]
_TAKE = SQL["take_message"]
_REPLY = SQL["insert_reply"]
_REMOVE_ATTEMPTS = SQL["remove_attempts"]
_REMOVE_JOBS = SQL["remove_jobs"]
_ENDED_BEFORE = SQL["ended_before"]
_REMOVE_REPLIES = SQL["remove_replies"]
_REMOVALS = tuple(
    SQL[name]
    for name in (
        "remove_records", "remove_states", "remove_attempts", "remove_messages",
        "remove_jobs", "remove_requests", "remove_awaiting", "remove_tags", "remove_run",
    )
)  # fmt: skip


def write_batch(connection: apsw.Connection, batch: Batch, *, lease: int, url: str) -> Committed:
    """Write all of `batch` but its renewal of the lease, to which the runs that it starts belong."""
    outcomes: list[StartOutcome] = []
    if batch.transactions:
        with lent(connection):
            do_transactions(batch, connection, lambda: savepoint(connection, url=url))
    handled = Handled([], [])
    if batch.handlings:
        with lent(connection):
            handled = do_handlings(
                batch,
                connection,
                lambda: savepoint(connection, url=url),
                lambda subscription, lane: lane_stand(connection, subscription, lane, lease=lease),
                lambda subscription, place: is_due(connection, subscription, place),
            )
    if batch.ends:
        ends = [(*end, lease) for end in batch.ends]
        write_rows(connection, _END, ends, (1,), with_end_checksums)
        again = [(end.run,) for end in batch.ends if end.status == Status.RUNNING]
        if again:
            connection.executemany(_REMOVE_ATTEMPTS, again)
            connection.executemany(_REMOVE_JOBS, again)
        leave(connection, batch.ends)
    if batch.starts:
        outcomes = write_starts(connection, batch.starts, lease=lease, url=url)
    if batch.forgotten:
        connection.executemany(_FORGET, batch.forgotten)
        connection.executemany(_FORGET_LENGTH, [(run,) for run, _ in batch.forgotten])
    if batch.records:
        _write_records(connection, batch.records)
    if batch.wakes:
        connection.executemany(_WAKE, batch.wakes)
    if batch.freed:
        connection.executemany(_FREE, [(number,) for number in batch.freed])
    if batch.states:
        write_rows(connection, _STATE, batch.states, (3,))
    if batch.attempts:
        write_rows(connection, _ATTEMPT, batch.attempts, (3, 4))
    if batch.jobs:
        queue_jobs(connection, batch.jobs)
    if batch.withdrawn:
        withdraw_jobs(connection, batch.withdrawn)
    positions = send_messages(connection, batch.messages, lease=lease)
    if batch.taken:
        connection.executemany(_TAKE, [(position,) for position in batch.taken])
    if batch.replies:
        replies = [reply._replace(ok=int(reply.ok)) for reply in batch.replies]  # as it is read
        write_rows(connection, _REPLY, replies, (2,))
    appended = append_events(connection, batch.appends, url=url) if batch.appends else []
    if batch.windows:  # before a mark that may give their lane up
        from .windows import write_windows  # most stores have none

        write_windows(connection, batch.windows, lease=lease, append=partial(append_events, url=url))
    _write_lanes(connection, batch, handled, lease=lease)
    return Committed(outcomes, positions, appended)


def _write_lanes(connection: apsw.Connection, batch: Batch, handled: Handled, *, lease: int) -> None:
    if batch.watches:
        write_watches(connection, batch.watches, lease=lease)
    refused = set[tuple[int, int]]()
    if batch.lanes or handled.marks:
        refused = write_lanes(connection, [*batch.lanes, *handled.marks], lease=lease)
    if batch.dead:  # of lanes whose marks were refused events are delivered again
        write_dead(connection, [one for one in batch.dead if (one.subscription, one.lane) not in refused])
    if batch.cleared or handled.cleared:
        clear_dead(connection, [*batch.cleared, *handled.cleared])


def write_submission(connection: apsw.Connection, batch: Batch, *, url: str) -> Committed:
    """Write the starts, messages and appends of a process that holds no lease: what it starts is free."""
    sent = Batch(starts=batch.starts, messages=batch.messages, appends=batch.appends)
    assert sent == batch, "only starts, messages and appends can be written without the lease"
    return write_batch(connection, sent, lease=0, url=url)


def remove_ended(connection: apsw.Connection, *, before_ms: int, limit: int) -> int:
    """Remove the runs that ended first, and replies that are older than that."""
    numbers = connection.execute(_ENDED_BEFORE, (before_ms, limit)).fetchall()
    for sql in _REMOVALS:
        connection.executemany(sql, numbers)
    connection.execute(_REMOVE_REPLIES, (before_ms, limit))
    return len(numbers)


def _write_records(connection: apsw.Connection, records: Sequence[Record]) -> None:
    try:
        rest = records
        if len(records) >= _TOGETHER and not any_large(records, (5,)):
            rest = _write_together(connection, records)
        write_rows(connection, _INSERT_RECORD, rest, (5,))
    except apsw.ConstraintError as error:
        connection.execute("ROLLBACK")
        raise AssertionError(
            f"{_name_duplicate(connection, records)} is there already ({error}): nothing was written. "
            "This is a mistake in Perdure; please report it."
        ) from error


def _write_together(connection: apsw.Connection, records: Sequence[Record]) -> Sequence[Record]:
    """Write so many in a statement; give the rest.

    Between two statements Python's lock changes hands, and a busy event loop keeps
    it for milliseconds: the fewer statements, the less a commit waits for it.
    """
    whole = len(records) - len(records) % _TOGETHER
    for at in range(0, whole, _TOGETHER):
        connection.execute(
            _INSERT_TOGETHER, tuple(chain.from_iterable(with_checksums(records[at : at + _TOGETHER])))
        )
    return records[whole:]


def _name_duplicate(connection: apsw.Connection, records: Sequence[Record]) -> str:
    """Find the record that is in the table, or twice in `records`."""
    seen: set[tuple[int, int]] = set()
    for record in records:
        place = (record.run, record.seq)
        if place in seen or connection.execute(_HAS_RECORD, place).get:
            return f"record {record.seq} of run {record.run}"
        seen.add(place)
    return "a record"
