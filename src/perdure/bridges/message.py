"""`Message`, as a broker gave it, and where messages come in by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """A message, as a broker gave it."""

    topic: str
    """The topic, or on NATS the subject."""
    partition: int
    """0 on NATS."""
    position: int
    """The offset, or on NATS the place in the JetStream stream."""
    time_ms: int
    """When the broker, or on Kafka the producer, says that it was written: Unix milliseconds."""
    key: str
    headers: Mapping[str, str]
    data: bytes
    id: str
    """That the producer gave it (`Nats-Msg-Id`); empty without one."""
    receipt: Any = None
    """What the broker's client needs to acknowledge it."""


class Source(Protocol):
    """A connection to a broker that messages come in by, each in its partition's order."""

    async def fetch(self) -> list[Message]:
        """The next ones; none after a moment in which none came."""
        ...

    async def acknowledge(self, messages: list[Message]) -> None:
        """They are on disk."""
        ...

    async def close(self) -> None:
        """What is not acknowledged comes again."""
        ...
