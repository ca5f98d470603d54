"""Row 82: row 32 on PostgreSQL, whose own password is a secret, too."""

from __future__ import annotations

from .r32_secrets import FAULT, HOLDS
from .row import Counted, Row, Trials, Work
from .secrets_looked_for import counted_secrets
from .servers import Server, with_a_server


def _run(work: Work, server: Server) -> Counted:
    return counted_secrets(
        work,
        lambda name, folder: server.store_url(name).replace("postgres@", "postgres:{password}@", 1),
    )


ROW = Row(
    number=82,
    name="secrets, PostgreSQL",
    fault=FAULT,
    how="Drawn words that stand for secrets, looked for, also as base64, in all that is said and written.",
    holds=HOLDS,
    trials=Trials(push=1, long=20, release=100),
    run=with_a_server(_run),
)
