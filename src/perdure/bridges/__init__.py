"""Bridges between streams and brokers: relays carry events out, intakes bring messages in.

    from perdure.bridges import nats

    to_nats = nats.relay(orders, "nats://localhost:4222", subject="shop.orders")
    from_nats = nats.intake(payments, "nats://localhost:4222", source="PAYMENTS", consumer="shop")

The database stays the system of record. A relay is a handler: an event is done when
the broker has acknowledged it. An intake acknowledges a message when the event that it
became is on disk. So each side sees everything at least once, and what comes in twice
is one event.
"""

from .intake import Intake, Rejected
from .message import Message
from .relay import Outgoing, Relay

__all__ = ["Intake", "Message", "Outgoing", "Rejected", "Relay"]
