"""Writes a batch: one statement for each kind of row, whatever their number, all sent together.

The order is that of the fields of `Batch`, with two exceptions, as in every store.
`ends` come first: a run that continues as new ends and starts again in the same
batch. And what is `forgotten` goes before the records. What needs no answer is committed by the
same message. Starts whose id is taken, tags, and messages that name a request need an answer
first: they have round trips of their own.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, NamedTuple

from psycopg.errors import UniqueViolation

from ...core.records import Record, Status
from ..base import Batch, Committed, RunEnd
from ..transactions import Handled
from .arrays import numbers, payloads, texts
from .dead import clear_dead, write_dead, write_watches
from .fence import Fence, FenceShut
from .gate import Gate
from .jobs import queue_jobs, withdraw_jobs
from .lease import Leases
from .lending import do_transactions_on
from .link import Link, Witness
from .messages import Sent, send_messages
from .starts import Starts
from .streams import Streams, write_lanes
from .windows import Windows

_WITHOUT_ANSWERS: Final = frozenset({
    "ends", "records", "forgotten", "wakes", "states", "attempts", "taken", "replies", "watches", "lanes",
    "dead", "cleared", "leases",
})  # fmt: skip
"""What a batch may hold that is written whole: nothing is asked of it, and nobody else is told of it."""
_ASKING: Final = tuple(name for name in Batch.__struct_fields__ if name not in _WITHOUT_ANSWERS)


class Written(NamedTuple):
    """What a batch came to."""

    committed: Committed
    concerns_others: bool
    """Whether other processes should look now."""


def write_batch(link: Link, batch: Batch, lease: Fence, leases: Leases, streams: Streams) -> Written:
    """Write all of `batch`, under a lease that is checked first. Raises LeaseLost."""
    if link.may_be_whole and not _asks_or_tells(batch):
        witness = _find_witness(batch)
        if witness is not None:
            with suppress(FenceShut):
                return _write_whole(link, batch, lease, leases, witness)
            link.undo()  # and what is the matter is found out with an answer
    return _write_asking(link, batch, lease, leases, streams)


def _asks_or_tells(batch: Batch) -> bool:
    """Whether an answer is needed before the end, or others are to be told after it."""
    return any(getattr(batch, name) for name in _ASKING) or any(mark.is_given_up for mark in batch.lanes)


def _write_whole(link: Link, batch: Batch, lease: Fence, leases: Leases, witness: Witness) -> Written:
    """Write a batch that needs no answer, and commit it, in one round trip."""
    with _naming_duplicates(), link.whole(lease, witness):
        _write_ends(link, batch.ends, lease=lease.lease.number)
        _write_rows(link, batch)
        _write_lanes(link, batch, Handled([], []), lease=lease.lease.number)
        if batch.leases:
            leases.renew(link, lease.lease, until_ms=batch.leases)
    return Written(Committed([], []), concerns_others=False)


def _write_asking(link: Link, batch: Batch, lease: Fence, leases: Leases, streams: Streams) -> Written:
    """Write any batch, in a transaction that is still to be committed."""
    starts = sent = appends = windows = None
    with _naming_duplicates():
        opened, handled = _open(link, batch, lease)
        with opened:
            _write_ends(link, batch.ends, lease=lease.lease.number)
            if batch.starts:
                continued = any(end.status == Status.CONTINUED for end in batch.ends)
                starts = Starts(link, batch.starts, lease=lease.lease.number, continued=continued)
            _write_rows(link, batch)
            if batch.messages and not any(message.request for message in batch.messages):
                sent = Sent(link, batch.messages, lease=lease.lease.number)
            if batch.appends:
                appends = streams.send(link, batch.appends)
            if batch.windows:
                windows = Windows(link, batch.windows, lease=lease.lease.number, send=streams.send)
            _write_lanes(link, batch, handled, lease=lease.lease.number)
            if batch.leases:
                leases.renew(link, lease.lease, until_ms=batch.leases)
    outcomes = starts.finish() if starts else []
    if sent:
        positions, holders = sent.finish()
    else:
        positions, holders = send_messages(link, batch.messages, lease=lease.lease.number)
    appended = appends.finish() if appends else []
    if windows:
        windows.finish()
    link.witness = _find_witness(batch) or link.witness
    for_others = bool(
        batch.freed or batch.jobs or batch.withdrawn or batch.appends or link.has_appended
        or batch.windows or any(mark.is_given_up for mark in batch.lanes)
        or holders - {lease.lease.number}
    )  # fmt: skip
    return Written(Committed(outcomes, positions, appended), for_others)


@contextmanager
def _naming_duplicates() -> Generator[None]:
    try:
        yield
    except UniqueViolation as error:
        raise AssertionError(
            f"{_name_duplicate(error)} is there already: nothing was written. This is a mistake in Perdure; "
            "please report it."
        ) from error


def _open(link: Link, batch: Batch, lease: Fence) -> tuple[AbstractContextManager[None], Handled]:
    """A transaction in which the work of steps and handlers has been done; and what that came to."""
    if not (batch.transactions or batch.handlings):
        return link.transaction(lease), Handled([], [])
    with link.transaction(lease):
        pass
    handled = do_transactions_on(link, batch, lease=lease.lease.number)
    return link.sending(), handled


def write_submission(link: Link, batch: Batch, gate: Gate, streams: Streams) -> Written:
    """Write the starts, messages and appends of a process that holds no lease: what it starts is free."""
    sent = Batch(starts=batch.starts, messages=batch.messages, appends=batch.appends)
    assert sent == batch, "only starts, messages and appends can be written without the lease"
    starts = appends = None
    with link.transaction():
        asked = gate.ask(link)
        if batch.starts:
            starts = Starts(link, batch.starts, lease=0, continued=False)
        if batch.appends:
            appends = streams.send(link, batch.appends)
    gate.check(asked)
    outcomes = starts.finish() if starts else []
    positions, _ = send_messages(link, batch.messages, lease=0)
    appended = appends.finish() if appends else []
    return Written(Committed(outcomes, positions, appended), concerns_others=True)


def remove_ended(link: Link, gate: Gate, *, before_ms: int, limit: int) -> int:
    """Remove the runs that ended first, and replies that are older than that."""
    with link.transaction():
        asked = gate.ask(link)
        found = link.run("ended_before", before_ms, limit)
        link.run("remove_replies", before_ms, limit)
    gate.check(asked)
    link.run("remove_runs", numbers(number for (number,) in found.fetchall()))
    return found.rowcount


def _write_ends(link: Link, ends: Sequence[RunEnd], *, lease: int) -> None:
    """Each run's ends in turn: a statement changes a row once."""
    while ends:
        now: dict[int, RunEnd] = {}
        later = [end for end in ends if now.setdefault(end.run, end) is not end]
        statuses, outputs, ended, wakes, runs = zip(*now.values(), strict=True)
        link.run(
            "end_runs", numbers(statuses), payloads(outputs), numbers(ended), numbers(wakes), numbers(runs),
            lease,
        )  # fmt: skip
        again = [end.run for end in now.values() if end.status == Status.RUNNING]
        if again:
            link.run("forget_attempts", numbers(again))
            link.run("remove_jobs", numbers(again))
        ends = later


def _write_rows(link: Link, batch: Batch) -> None:
    """Send everything but ends, starts and messages."""
    if batch.forgotten:
        runs, places = zip(*batch.forgotten, strict=True)
        link.run("forget_records", numbers(runs), numbers(places))
    if batch.records:
        _write_records(link, batch.records)
    if batch.wakes:
        wakes = {
            run: (wake_at_ms, crashes) for wake_at_ms, crashes, run in batch.wakes
        }  # the last one stands
        times, crashes = zip(*wakes.values(), strict=True)
        link.run("wake_runs", numbers(times), numbers(crashes), numbers(wakes))
    if batch.freed:
        link.run("free_runs", numbers(batch.freed))
    if batch.states:
        states = {(row.run, row.name): row for row in sorted(batch.states, key=lambda row: row.version)}
        runs, names, versions, contents, times = zip(*states.values(), strict=True)
        link.run(
            "put_states", numbers(runs), texts(names), numbers(versions), payloads(contents), numbers(times)
        )
    if batch.attempts:
        attempts = {(row.run, row.key, row.number): row for row in batch.attempts}
        runs, keys, places, failures, details, times = zip(*attempts.values(), strict=True)
        link.run(
            "put_attempts", numbers(runs), texts(keys), numbers(places), payloads(failures),
            payloads(details), numbers(times),
        )  # fmt: skip
    if batch.jobs:
        queue_jobs(link, batch.jobs)
    if batch.withdrawn:
        withdraw_jobs(link, batch.withdrawn)
    if batch.taken:
        link.run("take_messages", numbers(batch.taken))
    if batch.replies:
        requests, oks, contents, times = zip(*batch.replies, strict=True)
        link.run("insert_replies", texts(requests), numbers(oks), payloads(contents), numbers(times))


def _write_lanes(link: Link, batch: Batch, handled: Handled, *, lease: int) -> None:
    if batch.watches:
        write_watches(link, batch.watches, lease=lease)
    if batch.lanes or handled.marks:
        write_lanes(link, [*batch.lanes, *handled.marks], lease=lease)
    if batch.dead:
        write_dead(link, batch.dead, [*batch.lanes, *handled.marks], lease=lease)
    if batch.cleared or handled.cleared:
        clear_dead(link, [*batch.cleared, *handled.cleared])


def _write_records(link: Link, records: Sequence[Record]) -> None:
    places, kinds, keys, digests, times, contents, runs = zip(*records, strict=True)
    link.run(
        "insert_records", numbers(places), numbers(kinds), texts(keys), numbers(digests), numbers(times),
        payloads(contents), numbers(runs),
    )  # fmt: skip


def _find_witness(batch: Batch) -> Witness | None:
    """A record is the surest trace: nobody else can have written it, and it stays."""
    forgotten = {run for run, _ in batch.forgotten}
    for record in batch.records:
        if record.run not in forgotten:
            return "witness_record", record.run, record.seq
    return None


def _name_duplicate(error: UniqueViolation) -> str:
    place = re.search(r"\(run, seq\)=\((\d+), (\d+)\)", error.diag.message_detail or "")
    return f"record {place[2]} of run {place[1]}" if place else f"a row ({error.diag.message_detail})"
