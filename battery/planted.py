"""Bugs to plant into the real engine: the battery must notice each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import isfunction, signature
from pathlib import Path
from types import ModuleType
from typing import Any

from perdure.core.events import LaneRow
from perdure.core.execution import Execution
from perdure.core.joins import LaneJoin
from perdure.core.windows import LaneWindows
from perdure.runtime import subscriber
from perdure.runtime.committer import Committer
from perdure.runtime.lanes import Lane
from perdure.runtime.memory import Memory
from perdure.runtime.subscriber import Subscriber
from perdure.stores import transactions
from perdure.stores.base import Lease
from perdure.stores.postgres import store as postgres
from perdure.stores.sqlite.claims import Claims
from perdure.stores.sqlite.lease import Leases

from .row import Control, Work

_LATE_S = 0.005
_FENCE = "(SELECT held FROM {s}.lease WHERE number = $1)"
_TAKE = "UPDATE run SET lease = ? WHERE number = ?"


@contextmanager
def replaced(owner: type | ModuleType, **methods: Any) -> Iterator[None]:
    """Methods of a class, or names of a module, exchanged while the block lasts.

    Each must take what the one before takes: a bug that raises when it is called would be caught for that.
    """
    before = {name: getattr(owner, name) for name in methods}
    for name, method in methods.items():
        _refuse_other_arguments(before[name], method)
    try:
        for name, method in methods.items():
            setattr(owner, name, method)
        yield
    finally:
        for name, method in before.items():
            setattr(owner, name, method)


def _refuse_other_arguments(before: object, after: object) -> None:
    if not (isfunction(before) and isfunction(after)):
        return
    of_before, of_after = signature(before).parameters, signature(after).parameters
    takes_all = any(one.kind is one.VAR_POSITIONAL for one in of_after.values())
    assert takes_all or len(of_before) == len(of_after), f"{before.__qualname__} takes other arguments"


@contextmanager
def without_the_fence() -> Iterator[None]:
    """Any worker may write, whether it has the lease or not."""
    with replaced(Leases, check_fence=lambda self, connection, lease: None):
        yield


@contextmanager
def without_the_fence_on_postgres() -> Iterator[None]:
    """The same; stores that are opened within the block have it."""
    assert _FENCE in postgres._STATEMENTS
    with replaced(postgres, _STATEMENTS=postgres._STATEMENTS.replace(_FENCE, "true")):
        yield


@contextmanager
def claiming_what_others_have() -> Iterator[None]:
    """A worker that names runs has them, whosever they are."""

    def claim_these(self: Claims, lease: Lease, runs: Sequence[int], *, now_ms: int) -> set[int]:
        with self._database.transaction() as connection:
            connection.executemany(_TAKE, [(lease.number, run) for run in runs])
        return {*runs}

    with replaced(Claims, claim_these=claim_these):
        yield


@contextmanager
def delivering_early() -> Iterator[None]:
    """Records are fed back to their runs, and written some milliseconds later."""

    def deliver_first(self: Committer, group: Any) -> bool:
        with self._turn:
            self._deliver(group.residents, group.batch.records, group.values)
        group.residents = [None] * len(group.residents)  # else they would come a second time
        self._loop.call_later(_LATE_S, self._work.put, group)
        return False

    with replaced(Committer, _hand_over=deliver_first):
        yield


@contextmanager
def counting_calls() -> Iterator[None]:
    """A call's key is its number in the run, whatever the task that makes it."""

    def next_key(self: Execution, name: str) -> str:
        return f"0/{self._asked}/{name}"

    with replaced(Execution, _next_key=next_key):
        yield


@contextmanager
def counting_events_as_done_early() -> Iterator[None]:
    """An event counts as done when it is begun."""
    begin, finish = Subscriber._begin, Subscriber._finish

    def begin_and_finish(self: Subscriber, event: Any) -> None:
        begin(self, event)
        finish(self, event)

    def finish_if_not_begun(self: Subscriber, event: Any) -> None:
        if event.position not in self._running:
            finish(self, event)

    with replaced(Subscriber, _begin=begin_and_finish, _finish=finish_if_not_begun):
        yield


@contextmanager
def beginning_events_early() -> Iterator[None]:
    """The next event of a key begins when its handler is done, before that is on disk."""
    finish = Subscriber._finish

    def finish_and_let_next(self: Subscriber, event: Any) -> None:
        finish(self, event)
        begun = self._memory.begun
        if event.position in begun:
            begun.discard(event.position)
            self._let_next(self._memory.key_of(event))

    with replaced(Subscriber, _finish=finish_and_let_next):
        yield


@contextmanager
def beginning_a_key_at_once() -> Iterator[None]:
    """An event does not wait for the one of its key before it."""
    with replaced(Memory, key_of=lambda self, event: f"\0{event.position}"):
        yield


@contextmanager
def writing_without_the_mark() -> Iterator[None]:
    """What a handler with `transaction=True` writes is kept before its event counts as done."""
    with replaced(transactions, _with_done=lambda mark, before, done: mark):
        yield


@contextmanager
def keeping_what_failed() -> Iterator[None]:
    """What a handler with `transaction=True` has written is kept though it raised."""

    def is_done(handling: Any, connection: Any, savepoint: object) -> bool:
        try:
            handling.work(connection)
        except Exception as error:
            handling.failed = error
        return handling.failed is None

    with replaced(transactions, _is_done=is_done):
        yield


@contextmanager
def forgetting_windows() -> Iterator[None]:
    """The windows of a lane are not kept with its place."""
    with replaced(LaneWindows, take_changed=lambda self: ([], [])):
        yield


@contextmanager
def forgetting_what_waits_in_a_join() -> Iterator[None]:
    """What waits in a lane of a join is not kept with its place."""
    with replaced(LaneJoin, take_changed=lambda self: ([], [])):
        yield


@contextmanager
def losing_what_is_given_up() -> Iterator[None]:
    """An event that is given up counts as done, and is not parked."""
    with replaced(Subscriber, _write_dead=lambda self, *given: None):
        yield


@contextmanager
def leaving_out_an_event_at_takeover() -> Iterator[None]:
    """Who takes a lane up begins one position too late."""
    init = Lane.__init__

    def begin_late(self: Lane, row: LaneRow) -> None:
        init(self, row._replace(cursor=row.cursor + 1) if row.cursor else row)

    with replaced(Lane, __init__=begin_late):
        yield


@contextmanager
def parking_only_after_many_deaths() -> Iterator[None]:
    """However many workers died of an event, others are to try it, too."""
    with replaced(subscriber, DEATHS_BEFORE_PARKING=100):
        yield


@contextmanager
def overtaking_what_is_parked() -> Iterator[None]:
    """Whether others of its key are parked makes no difference to an event."""
    with replaced(Subscriber, _is_behind=lambda self, event, order: False):
        yield


def caught_by(play: Callable[[], object]) -> str:
    """What was noticed of a planted bug; empty when nothing was."""
    try:
        play()
    except AssertionError as broken:
        return str(broken).partition(". ")[0][:160]
    return ""


def first_caught(
    work: Work, planted: str, play: Callable[[int, Path], object], *, seeds: int, law: str = ""
) -> Control:
    """Play seed after seed with a bug in it until what is noticed speaks of `law`."""
    for seed in range(seeds):
        with work.fresh_folder() as folder:
            broken = caught_by(partial(play, seed, folder))
        if broken and law in broken:
            return Control(planted, True, f"seed {seed}: {broken}")
    return Control(planted, False, f"nothing, in {seeds} trials")
