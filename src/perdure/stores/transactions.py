"""The work of steps, and of handlers, that write to the store's own database in the transaction of a batch.

Each has a savepoint: one that fails leaves the others, and all that the batch holds
besides. A step's record becomes a TICK then, since the places of those after it are given;
a handler's event is not marked as done.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple

from ..core.events import LaneMark
from ..core.records import Kind
from ..core.stretches import covers, joined
from ..errors import LeaseLost, StoreFull, StoreLocked, StoreUnreachable
from .base import Batch
from .rows import Handling

_HINDERED: Final = (StoreFull, StoreLocked, StoreUnreachable)
"""The store cannot be written now: the whole batch is tried again."""
_OF_WORK: Final = (Exception, SystemExit, CancelledError)
"""What a function may raise without ending the worker: also what another store told it."""


class Handled(NamedTuple):
    """What handlers in a batch's transaction have come to: to be written after the batch's own."""

    marks: list[LaneMark]
    cleared: list[tuple[int, int]]
    """(subscription, position) of those that waited on disk, and are done."""


def do_transactions(
    batch: Batch, connection: Any, savepoint: Callable[[], AbstractContextManager[object]]
) -> None:
    """Do the work of a batch's transactions, and put what comes of it into its records."""
    for transaction in batch.transactions:
        record = batch.records[transaction.place]
        transaction.failed = None
        try:
            with savepoint():
                payload = transaction.work(connection)
        except _HINDERED:
            raise
        except _OF_WORK as error:
            transaction.failed = _as_failure(error)
            tick = record._replace(kind=int(Kind.TICK), key="", digest=0, payload=None)
            batch.records[transaction.place] = tick
        else:
            batch.records[transaction.place] = record._replace(
                kind=int(Kind.STEP), key=transaction.key, digest=transaction.digest, payload=payload
            )


def do_handlings(
    batch: Batch,
    connection: Any,
    savepoint: Callable[[], AbstractContextManager[object]],
    stand: Callable[[int, int], LaneMark | None],
    is_due: Callable[[int, int], bool],
) -> Handled:
    """Do the work of a batch's handlers; give the marks of their lanes, and what waits no more.

    `stand` says how far a lane is on disk; None for one that is not the lease's. `is_due`: whether
    an event (subscription, position) waits on disk for its turn. The batch
    is left as it is, but for what failed: it may have to be written again.
    """
    stands: dict[tuple[int, int], LaneMark | None] = {}
    done: dict[tuple[int, int], set[int]] = {}
    cleared: dict[tuple[int, int], None] = {}
    for handling in batch.handlings:
        place, event = (handling.subscription, handling.lane), (handling.subscription, handling.position)
        if place not in stands:
            stands[place], done[place] = stand(*place), set()
        before = stands[place]
        handling.failed = None
        if before is None or before.generation != handling.generation:
            handling.failed = LeaseLost("The event's lane is elsewhere now. Nothing was written.")
        elif handling.was_on_disk:
            if event not in cleared and is_due(*event) and _is_done(handling, connection, savepoint):
                cleared[event] = None
        elif handling.position <= before.cursor or handling.position in done[place]:
            pass  # it is done: by a commit whose answer was lost
        elif not covers(before.done, handling.position) and _is_done(handling, connection, savepoint):
            done[place].add(handling.position)
    marks = {(mark.subscription, mark.lane): mark for mark in batch.lanes}
    return Handled(
        [
            _with_done(marks.get(place, before), before, done[place])
            for place, before in stands.items()
            if before is not None
        ],
        list(cleared),
    )


def _is_done(
    handling: Handling, connection: Any, savepoint: Callable[[], AbstractContextManager[object]]
) -> bool:
    try:
        with savepoint():
            handling.work(connection)
    except _HINDERED:
        raise
    except _OF_WORK as error:
        handling.failed = _as_failure(error)
    return handling.failed is None


def _as_failure(error: BaseException) -> BaseException:
    """What whoever waits can take: some would end it without a word, or say that the lane is lost."""
    if not isinstance(error, StopIteration | CancelledError | LeaseLost):
        return error
    failure = RuntimeError(f"The function raised {type(error).__name__}: {error}".removesuffix(": ") + ".")
    failure.__cause__ = error
    return failure


def _with_done(mark: LaneMark, before: LaneMark, done: set[int]) -> LaneMark:
    return mark._replace(done=joined((*before.done, *mark.done), done, above=mark.cursor))
