"""Row 81: row 31 on PostgreSQL: events, messages and documents that name addresses."""

from __future__ import annotations

from .baited import HOLDS, counted_baits
from .r31_addresses import FAULT
from .row import Counted, Row, Trials, Work
from .servers import Server, with_a_server


def _run(work: Work, server: Server) -> Counted:
    return counted_baits(work, lambda name, folder: server.store_url(name))


ROW = Row(
    number=81,
    name="addresses in data, PostgreSQL",
    fault=FAULT,
    how="Fifteen addresses in data, keys, ids, sources, headers and references; something listens there, and "
    "what the process opens, looks up and connects to is overheard.",
    holds=HOLDS,
    trials=Trials(push=1, long=20, release=100),
    run=with_a_server(_run),
)
