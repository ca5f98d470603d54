"""CloudEvents 1.0 on a broker's message: attributes as headers, the event's payload as the body.

What is read may come from any sender, also in structured mode, where the body is one
JSON object with the attributes in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import msgspec

from ..blocks.event import milliseconds, moment
from ..core.events import EventRow
from ..errors import NotDecodable

STRUCTURED = "application/cloudevents"
"""What the content type of a message in structured mode begins with."""

_SCHEMA = "urn:perdure:event:"
_SAFE = "!#$&'()*+,/:;<=>?@[\\]^`{|}~-._"
"""Left as it is in a header that must be ASCII; letters and digits are, too."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What names an event, and says of what type it is."""

    id: str
    source: str
    type: str
    time_ms: int | None
    version: int
    trace: str


def headers_of(event: EventRow, stream: str, *, prefix: str, is_ascii: bool) -> dict[str, str]:
    """The headers of an event on its way out. `is_ascii`: the broker's headers hold nothing else."""
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source or _source_of(stream),
        "type": event.type,
        "time": moment(event.time_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "subject": event.key,
        "partitionkey": event.key,
        "dataschema": f"{_SCHEMA}{quote(event.type)}:{event.version}",
        "traceparent": event.trace,
    }
    return {
        prefix + name: quote(value, safe=_SAFE) if is_ascii else value
        for name, value in attributes.items()
        if value
    }


def _source_of(stream: str) -> str:
    """An event's source may be empty here, and not on the wire."""
    return f"/streams/{quote(stream)}"


def read_headers(headers: Mapping[str, str], *, prefix: str, is_ascii: bool) -> Attributes | None:
    """The attributes of a message in binary mode; None for one that is no CloudEvent. Raises NotDecodable."""
    lowered = {name.lower(): value for name, value in headers.items()}
    if f"{prefix}specversion" not in lowered:
        return None
    found = {
        name.removeprefix(prefix): unquote(value) if is_ascii else value
        for name, value in lowered.items()
        if name.startswith(prefix)
    }
    return _attributes(found)


class _Structured(msgspec.Struct):
    specversion: str
    id: str
    source: str
    type: str
    time: str = ""
    dataschema: str = ""
    traceparent: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    data_base64: bytes | None = None


def read_structured(body: bytes) -> tuple[Attributes, bytes]:
    """The attributes and the payload of a message in structured mode. Raises NotDecodable."""
    try:
        found = msgspec.json.decode(body, type=_Structured)
    except msgspec.DecodeError as error:
        raise NotDecodable("CloudEvent", str(error)) from error
    texts = {name: str(getattr(found, name)) for name in _Structured.__struct_fields__ if "data" not in name}
    payload = bytes(found.data) if found.data_base64 is None else found.data_base64
    return _attributes(texts), payload


def _attributes(found: Mapping[str, str]) -> Attributes:
    missing = [name for name in ("id", "source", "type") if not found.get(name)]
    if missing:
        raise NotDecodable("CloudEvent", f"it has no {' and no '.join(missing)}")
    schema = found.get("dataschema", "")
    version = schema.rpartition(":")[2] if schema.startswith(_SCHEMA) else ""
    return Attributes(
        id=found["id"],
        source=found["source"],
        type=found["type"],
        time_ms=_milliseconds(found.get("time", "")),
        version=int(version) if version.isdecimal() else 1,
        trace=found.get("traceparent", ""),
    )


def _milliseconds(text: str) -> int | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise NotDecodable("CloudEvent", f"its time is {text!r}") from error
    return milliseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
