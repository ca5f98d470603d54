"""The work of steps, and of handlers, that write to the store's own database in the transaction of a batch.

Each has a savepoint: one that fails leaves the others, and all that the batch holds
besides. A step's record becomes a TICK then, since the places of those after it are given;
a handler's event is not marked as done.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..core.events import LaneMark
from ..core.records import Kind
from ..errors import LeaseLost, StoreError
from .base import Batch


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
        except StoreError:
            raise
        except Exception as error:
            transaction.failed = error
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
) -> list[LaneMark]:
    """Do the work of a batch's handlers; give the marks of their lanes, to be written after the batch's own.

    `stand` says how far a lane is on disk; None for one that is not the lease's. The batch
    is left as it is, but for what failed: it may have to be written again.
    """
    stands: dict[tuple[int, int], LaneMark | None] = {}
    done: dict[tuple[int, int], set[int]] = {}
    for handling in batch.handlings:
        place = (handling.subscription, handling.lane)
        if place not in stands:
            found = stands[place] = stand(*place)
            done[place] = set() if found is None else set(found.done)
        before = stands[place]
        handling.failed = None
        if before is None:
            handling.failed = LeaseLost("The event's lane is another worker's. Nothing was written.")
            continue
        if handling.position <= before.cursor or handling.position in done[place]:
            continue  # it is done: by a commit whose answer was lost
        try:
            with savepoint():
                handling.work(connection)
        except StoreError:
            raise
        except Exception as error:
            handling.failed = error
        else:
            done[place].add(handling.position)
    marks = {(mark.subscription, mark.lane): mark for mark in batch.lanes}
    return [
        _with_done(marks.get(place, before), done[place])
        for place, before in stands.items()
        if before is not None
    ]


def _with_done(mark: LaneMark, done: set[int]) -> LaneMark:
    above = {position for position in done.union(mark.done) if position > mark.cursor}
    return mark._replace(done=tuple(sorted(above)))
