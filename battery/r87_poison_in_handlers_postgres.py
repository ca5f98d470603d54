"""Row 87: row 37 on PostgreSQL: events that make who handles them raise, hang, spin, crash or exit."""

from __future__ import annotations

from .poisoned import CASES, counted_poisons
from .r37_poison_in_handlers import HOLDS
from .row import Counted, Row, Trials, Work
from .servers import Server, with_a_server


def _run(work: Work, server: Server) -> Counted:
    return counted_poisons(work, lambda name, folder: server.store_url(name))


ROW = Row(
    number=87,
    name="poison in handlers, PostgreSQL",
    fault="An event cannot be read, or makes its handler raise, hang, spin, recurse, crash or exit.",
    how=f"{len(CASES)} poisons and kinds of handler on one server, in forked workers that are begun "
    "again, or killed when they stand still.",
    holds=HOLDS,
    trials=Trials(push=4, long=len(CASES), release=10 * len(CASES)),
    run=with_a_server(_run),
)
