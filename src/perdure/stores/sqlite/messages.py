"""Sends messages to runs: dropped where the run has ended, and each request taken once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import apsw

from ...core.records import Message, MessageKind
from ..base import DROPPED, KNOWN
from . import blobs
from .checksums import checksum
from .statements import SQL

_RESERVE = SQL["reserve_numbers"]
_HAS_REQUEST = SQL["has_request"]
_HAD_REQUEST = SQL["had_request"]
_INSERT_REQUEST = SQL["insert_request"]
_INSERT_MESSAGE = SQL["insert_message"]
_END_JOB = SQL["end_job"]


def reserve_numbers(connection: apsw.Connection, name: Literal["run", "message", "lease"], count: int) -> int:
    """Give the first of `count` numbers that were never given before."""
    first: Any = connection.execute(_RESERVE, (name, count)).get
    return first


def send_messages(connection: apsw.Connection, messages: Sequence[Message], *, lease: int) -> list[int]:
    """Keep each message until it is taken; give what `Committed.messages` is to hold. `lease` sends them."""
    if not messages:
        return []
    first = reserve_numbers(connection, "message", len(messages))
    return [_send(connection, message, position, lease) for position, message in enumerate(messages, first)]


def hand_on(connection: apsw.Connection, messages: Sequence[Message]) -> None:
    """Keep what the run before had: each request in it was taken once already, by that run."""
    first = reserve_numbers(connection, "message", len(messages))
    for position, message in enumerate(messages, first):
        _keep(connection, message, position)


def _send(connection: apsw.Connection, message: Message, position: int, lease: int) -> int:
    if message.kind == MessageKind.STEP_ENDED:
        connection.execute(_END_JOB, (message.run, message.name, lease))
        if connection.changes() == 0:
            return DROPPED
    if message.request:
        if message.kind == MessageKind.SIGNAL:
            had: Any = connection.execute(_HAD_REQUEST, (message.run, message.request)).get
            if had:
                return KNOWN
        connection.execute(_INSERT_REQUEST, (message.run, message.request))
        if connection.changes() == 0:
            known: Any = connection.execute(_HAS_REQUEST, (message.run, message.request)).get
            return KNOWN if known else DROPPED
    return _keep(connection, message, position)


def _keep(connection: apsw.Connection, message: Message, position: int) -> int:
    held = blobs.put(connection, message.payload)
    columns = (position, message.run, message.kind, message.name, held, message.request, message.at_ms)
    connection.execute(_INSERT_MESSAGE, (*columns, checksum(columns)))
    if connection.changes() == 0:
        blobs.drop(connection, held)
        return DROPPED
    return position
