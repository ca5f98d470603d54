"""A broker in memory: it has some messages, and an intake takes them in as from any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from perdure import Stream
from perdure.bridges.intake import Intake
from perdure.bridges.message import Message

_LOOK_S = 0.02


def post(into: Stream[Any], messages: Callable[[], Sequence[Message]]) -> Intake[Any]:
    """Takes these in; they are asked for when a worker begins to."""
    return Intake(
        into, place=f"post:{into.name}", name="post", decode=None, dedup="id", prefix="ce-", is_ascii=True,
        connect=partial(_connect, messages),
    )  # fmt: skip


async def _connect(messages: Callable[[], Sequence[Message]], driver: object) -> _Post:
    return _Post(messages())


class _Post:
    """The connection: it gives all at once, and then nothing."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)

    async def fetch(self) -> list[Message]:
        found, self._messages = self._messages, []
        await asyncio.sleep(0 if found else _LOOK_S)
        return found

    async def acknowledge(self, messages: list[Message]) -> None:
        """They are gone."""

    async def close(self) -> None:
        """Nothing is open."""
