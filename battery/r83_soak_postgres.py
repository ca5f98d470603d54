"""Row 83: row 33 on PostgreSQL: steady load on a stream for long, while processes are killed."""

from __future__ import annotations

from .r33_soak import HOLDS, seconds_of
from .row import Counted, Row, Trials, Work
from .servers import Server, with_a_server
from .soaked import counted_soak


def _run(work: Work, server: Server) -> Counted:
    return counted_soak(work, lambda name, folder: server.store_url(name), seconds=seconds_of(work))


ROW = Row(
    number=83,
    name="soak, PostgreSQL",
    fault="A stream has steady load for long; a worker beside, or who appends, is killed every few seconds.",
    how="100 events a second to a handler and to windows; 10 minutes, and an hour before a release.",
    holds=HOLDS,
    trials=Trials(push=1, long=1, release=1),
    run=with_a_server(_run),
)
