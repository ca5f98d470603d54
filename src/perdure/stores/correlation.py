"""By which fields a run waits for an event, and what stands in those of an event. The same in every store.

Values are compared as JSON: those of a wait and those of an event are written in one way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import msgspec

from ..core.events import EventRow
from ..core.records import Message

_SIGNAL = "event "
_WRITTEN_OUT = 200
"""Longer values are kept as a hash of 128 bits."""


class Wanted(NamedTuple):
    """An event that a run waits for."""

    stream: str
    type: str
    fields: str
    """The names of the fields, as JSON, sorted."""
    value: str
    """What must stand in them; see `value_of`."""
    signal: str
    """By which the run hears of it."""


class Found(NamedTuple):
    """What became of asking for an event."""

    event: str | None = None
    """The first one that the run has not been given: from now on it has. None: it is sent."""
    is_partial: bool = False
    """Not all events have been looked at: ask again, nothing else was done."""


class Given(NamedTuple):
    """What came of comparing events with the runs that wait."""

    messages: Sequence[Message]
    """The events that were given, as they were sent to their runs."""
    is_more: bool
    """Whether there is more to compare at once."""
    is_held_back: bool
    """Whether there is more that may not be compared yet; nobody tells when it may."""


def wanted(stream: str, type: str, where: Mapping[str, Any]) -> Wanted:
    """The event of a type in whose fields these values stand, as JSON has them."""
    names = sorted(where)
    fields = msgspec.json.encode(names).decode()
    value = _written([where[name] for name in names])
    text = msgspec.json.encode({name: where[name] for name in names}, order="sorted").decode()
    signal = f"{_SIGNAL}{stream}/{type} {text if len(text) <= _WRITTEN_OUT else f'{fields} {value}'}"
    return Wanted(stream, type, fields, value, signal)


def read_signal(signal: str) -> tuple[str, dict[str, Any]] | None:
    """What a run was told of by this signal: `event orders/order.paid`, and the values by their fields.

    Instead of long values there is their hash. None: it is another signal, a program's own.
    """
    of, brace, text = signal.partition(" {")
    try:
        if brace:
            found: Any = msgspec.json.decode("{" + text)
        else:
            of, bracket, text = signal.partition(" [")
            fields, _, value = text.partition("] ")
            names = msgspec.json.decode(f"[{fields}]", type=list[str])
            found = dict.fromkeys(names if bracket else (), value)
    except msgspec.DecodeError:
        return None
    return (of, found) if of.startswith(_SIGNAL) and "/" in of else None


def signal_without(of: str, where: Mapping[str, Any]) -> str:
    """The signal `of` which other values are told."""
    return f"{of} {msgspec.json.encode(where, order='sorted').decode()}"


def fits(event: EventRow, wanted: Wanted) -> bool:
    """Whether an event of the stream is one that is wanted."""
    fields = msgspec.json.decode(wanted.fields, type=list[str])
    return event.type == wanted.type and value_of(event.payload, fields) == wanted.value


def value_of(payload: bytes, fields: Sequence[str]) -> str:
    """What stands in these fields of an event; a field that is not there is null."""
    data: Any = msgspec.json.decode(payload) if fields else {}
    found = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    return _written([found.get(name) for name in fields])


def _written(values: Sequence[Any]) -> str:
    data = msgspec.json.encode(values, order="sorted")
    return data.decode() if len(data) <= _WRITTEN_OUT else blake2b(data, digest_size=16).hexdigest()


def event_as_text(event: EventRow) -> str:
    """An event as a run is told of it."""
    return msgspec.json.encode((*event[:9], msgspec.Raw(event.payload))).decode()


def event_from_text(data: bytes) -> EventRow:
    """The other way round."""
    row = _read(data)
    return EventRow(*row[:9], bytes(row[9]))


_read = msgspec.json.Decoder(
    tuple[int, str, str, str, int, str, int, int, str, msgspec.Raw]  # the columns of an EventRow
).decode
