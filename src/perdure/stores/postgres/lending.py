"""Lending the connection that writes to a step's function, for a while, and with care.

What it does there is part of a commit that holds other runs' records too. So each step
has a savepoint, and its deferred constraints are looked at before the next has its turn. One
that ends the transaction all the same has written outside of it what cannot be undone:
it fails, and the others are done again.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from psycopg.errors import SerializationFailure
from psycopg.pq import TransactionStatus

from ...core.events import LaneMark
from ...errors import StepError
from ..base import Batch
from ..standing import read_history
from ..transactions import Handled, do_handlings, do_transactions
from .dead import is_due
from .link import Link


def do_transactions_on(link: Link, batch: Batch, *, lease: int) -> Handled:
    """Do the work of a batch's steps and handlers, in the transaction that the link is in.

    Gives what the handlers came to, as far as their lanes are the lease's.
    """
    do_transactions(batch, link.connection, lambda: _savepoint(link))
    handled = do_handlings(
        batch,
        link.connection,
        lambda: _savepoint(link),
        lambda subscription, lane: _stand(link, subscription, lane, lease=lease),
        lambda subscription, position: is_due(link, subscription, position),
    )
    if link.connection.info.transaction_status == TransactionStatus.INTRANS:
        return handled
    for work in (*batch.transactions, *batch.handlings):
        if work.failed is not None:
            work.work = _refuse  # for good: the others may not pay for it
    raise SerializationFailure("a step has ended the transaction that its result was to be written in")


def _stand(link: Link, subscription: int, lane: int, *, lease: int) -> LaneMark | None:
    if link.connection.info.transaction_status != TransactionStatus.INTRANS:
        return None  # a step has ended the transaction: all is undone
    found = link.rows("lane_stand", subscription, lane, lease)
    if not found:
        return None
    cursor, done, generation, history = found[0]
    return LaneMark(cursor, tuple(done), subscription, lane, generation, read_history(history))


@contextmanager
def _savepoint(link: Link) -> Generator[None]:
    connection = link.connection
    if connection.info.transaction_status != TransactionStatus.INTRANS:
        raise SerializationFailure("the step before has ended the transaction")
    with connection.transaction():
        yield
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _refuse(connection: object) -> bytes:
    raise StepError(
        "The step ended the transaction that its result was to be written in, so what it wrote before may "
        "be there without its result.",
        hint="Leave COMMIT and ROLLBACK out: its writes are committed together with its result.",
    )
