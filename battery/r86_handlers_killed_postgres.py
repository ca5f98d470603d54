"""Row 86: row 36 on PostgreSQL: workers that handle events, and who appends them, are killed at random."""

from __future__ import annotations

from .handled import counted_lives
from .row import Counted, Row, Trials, Work
from .servers import Server, with_a_server

_WORKERS = 3
_LONGEST_LIFE_S = 0.15


def _run(work: Work, server: Server) -> Counted:
    return counted_lives(
        work, lambda name, folder: server.store_url(name), workers=_WORKERS, longest_life_s=_LONGEST_LIFE_S
    )


ROW = Row(
    number=86,
    name="handlers killed, PostgreSQL",
    fault="One of three workers that handle events, or who appends them, is killed by SIGKILL.",
    how="Forked processes on one PostgreSQL store; a real `kill -9` at a random instant, ten in each trial.",
    holds=(
        "each event is in the stream once, at one position",
        "each event is handled until its handler is done",
        "the next event of a key is not begun before; after it was, none before it is given again",
        "an event has one idempotency key, whichever worker handles it",
    ),
    trials=Trials(push=2, long=150, release=3_000),
    run=with_a_server(_run),
)
