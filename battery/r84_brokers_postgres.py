"""Row 84: row 34 on PostgreSQL: brokers that are away, die, stand still or answer with errors."""

from __future__ import annotations

from .bridged import counted_bridges
from .r34_brokers import FAULT, HOLDS
from .row import Counted, Row, Trials, Work
from .servers import Server, with_a_server


def _run(work: Work, server: Server) -> Counted:
    return counted_bridges(work, lambda name, folder: server.store_url(name))


ROW = Row(
    number=84,
    name="brokers, PostgreSQL",
    fault=FAULT,
    how="A real NATS server, which syncs always, and librdkafka's Kafka cluster in turn; a worker takes in "
    "from it, into a PostgreSQL store, and relays to it.",
    holds=HOLDS,
    trials=Trials(push=2, long=40, release=400),
    run=with_a_server(_run),
)
