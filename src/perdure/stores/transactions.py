"""The work of steps that write to the store's own database, in the transaction of their records.

Each has a savepoint: one that fails leaves the others, and all that the batch holds
besides. Its record becomes a TICK, since the places of those after it are given.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..core.records import Kind
from ..errors import StoreError
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
