"""Row 70: row 20 on PostgreSQL: the same histories, and the same model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from perdure import engine
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.ear import Ear

from .planted import replaced
from .r20_state_machine import ROW as ON_SQLITE
from .r20_state_machine import Runs, run_with
from .row import Counted, Row, Trials, Work
from .servers import Server, with_a_server
from .simulating.witness import Witness


class _Store(PostgresStore):
    """One whose leases last by virtual time, and that does all on the caller's thread."""

    reads_block = False

    def __init__(self, url: str, **options: bool) -> None:
        super().__init__(url, believes_caller=True, **options)

    def listen(self, heard: Callable[[], None]) -> bool:
        """Workers look instead: a thread has no place in virtual time."""
        return False


class _Witness(Witness):
    """Asks the rows of that store."""

    def is_held(self, lease: int, store: Any) -> bool:
        return lease in {row.number for row in store._leases.held(now_ms=0)}


def _run(work: Work, server: Server) -> Counted:
    numbers = count()

    class RunsOnPostgres(Runs):
        make_witness = _Witness

        def _new_store(self) -> str:
            return f"{server.url}&schema=history_{next(numbers)}"

    with replaced(engine, open_store=_Store), replaced(Ear, be_present=lambda self, lease: None):
        return run_with(work, RunsOnPostgres)


ROW = Row(
    number=70,
    name="state machine, PostgreSQL",
    fault=ON_SQLITE.fault,
    how=ON_SQLITE.how,
    holds=ON_SQLITE.holds,
    trials=Trials(push=4, long=100, release=10_000),
    run=with_a_server(_run),
)
