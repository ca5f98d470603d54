"""Events as CloudEvents 1.0, the way they go over HTTP and brokers, and back.

Law: what is written here and read again is the same event. The `subject`, and the
`partitionkey` of the partitioning extension, are the event's key; `dataschema` names
its type and version; `traceparent` and `tracestate` are those of the tracing extension. A source may not be
empty on the wire: an event that has none is given its stream's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from ..codec.json import encode
from ..core.events import EventRow
from ..errors import NotDecodable
from .event import Event, milliseconds, moment
from .stream import Stream
from .tracing import parts_of

STRUCTURED = "application/cloudevents"
"""What the content type of an event begins with that is one JSON object, its attributes beside its data."""

_SCHEMA = "urn:perdure:event:"
_HEADER_SAFE = "!#$&'()*+,/:;<=>?@[\\]^`{|}~-._"
"""Left as it is in a header; letters and digits are, too."""
_MEDIA_TYPE_OF_JSON = re.compile(r"(?i)\s*(text|application)/([\w.-]+\+)?json\s*(;|$)")


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """An event on the wire. `payload` is JSON."""

    id: str
    source: str
    type: str
    payload: bytes
    subject: str = ""
    """The event's key."""
    time: datetime | None = None
    """When it happened."""
    dataschema: str = ""
    traceparent: str = ""
    tracestate: str = ""

    @classmethod
    def of(cls, event: Event[Any]) -> CloudEvent:
        """An event that a handler or a run was given. Raises NotSerialisable for data that cannot be kept."""
        return cls(
            id=event.id,
            source=event.source or _source_of(event.stream),
            type=event.type,
            payload=encode(event.data, f"event {event.id!r}"),
            subject=event.key,
            time=event.time,
            dataschema=_schema_of(event.type, event.version),
            traceparent=event.trace_parent,
            tracestate=event.trace_state,
        )

    @property
    def version(self) -> int:
        """Of the type's schema, as far as `dataschema` tells; else 1."""
        number = self.dataschema.rpartition(":")[2] if self.dataschema.startswith(_SCHEMA) else ""
        return int(number) if number.isdecimal() else 1

    def source_in(self, stream: Stream[Any]) -> str:
        """The source with which it is appended to a stream: empty for one that was given the stream's own."""
        return "" if self.source == _source_of(stream.name) else self.source

    def read(self, stream: Stream[Any]) -> Any:
        """Its value, as an event of a stream. Raises NotDecodable for one that does not fit its types."""
        time_ms = 0 if self.time is None else milliseconds(self.time)
        row = EventRow(
            0, self.id, self.source, self.type, self.version, self.subject, time_ms, 0, self.traceparent,
            self.payload,
        )  # fmt: skip
        return stream.decode(row)

    # -- one JSON object -------------------------------------------------------------------------

    def structured(self) -> dict[str, Any]:
        """As one JSON object, of content type `application/cloudevents+json`."""
        attributes = _attributes_of(self)
        return {
            **attributes,
            "datacontenttype": "application/json",
            "data": msgspec.json.decode(self.payload),
        }

    def to_json(self) -> bytes:
        """The same, encoded; the data is as it was written."""
        attributes = {**_attributes_of(self), "datacontenttype": "application/json"}
        return msgspec.json.encode({**attributes, "data": msgspec.Raw(self.payload)})

    @classmethod
    def from_json(cls, body: bytes | str) -> CloudEvent:
        """Read one that is one JSON object. Raises NotDecodable."""
        try:
            found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            attributes = {
                name: str(attribute)
                for name, value in found.items()
                if name not in ("data", "data_base64")
                and (attribute := msgspec.json.decode(value)) is not None  # null: it is not there
            }
            data = bytes(found.get("data", b"null"))
            if "data_base64" in found:
                data = msgspec.json.decode(found["data_base64"], type=bytes | None) or data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotDecodable("CloudEvent", str(error)) from error
        return _from_attributes(attributes, data)

    # -- attributes in headers -------------------------------------------------------------------

    def binary(self, prefix: str = "ce-") -> tuple[dict[str, str], bytes]:
        """As headers and a body: the form for HTTP, and with prefix `ce_` for Kafka. Headers are ASCII."""
        return {**headers_of(self, prefix), "content-type": "application/json"}, self.payload

    @classmethod
    def from_http(cls, headers: Mapping[str, str], body: bytes, prefix: str = "ce-") -> CloudEvent:
        """Read one in whichever form it came. Raises NotDecodable."""
        lowered = {name.lower(): value for name, value in headers.items()}
        content_type = lowered.get("content-type", "")
        if content_type.lower().startswith(STRUCTURED):
            return cls.from_json(body)
        if content_type and _MEDIA_TYPE_OF_JSON.match(content_type) is None:
            raise NotDecodable("CloudEvent", f"its content type is {content_type!r}, and no JSON")
        return read_headers(headers, body, prefix)


def of_row(event: EventRow, stream: str) -> CloudEvent:
    """An event as it is stored."""
    traceparent, tracestate = parts_of(event.trace)
    return CloudEvent(
        id=event.id,
        source=event.source or _source_of(stream),
        type=event.type,
        payload=event.payload,
        subject=event.key,
        time=moment(event.time_ms),
        dataschema=_schema_of(event.type, event.version),
        traceparent=traceparent,
        tracestate=tracestate,
    )


def headers_of(event: CloudEvent, prefix: str, *, is_ascii: bool = True) -> dict[str, str]:
    """The attributes as headers. `is_ascii`: the headers hold nothing else, and so the rest is encoded."""
    return {
        prefix + name: quote(value, safe=_HEADER_SAFE) if is_ascii else value
        for name, value in _attributes_of(event).items()
    }


def message_headers(event: EventRow, stream: str, prefix: str, *, is_ascii: bool = True) -> dict[str, str]:
    """The headers of an event that goes to a broker: its trace also by the names that tracers look for."""
    found = of_row(event, stream)
    trace = {"traceparent": found.traceparent, "tracestate": found.tracestate}
    return {
        **headers_of(found, prefix, is_ascii=is_ascii),
        **{name: value for name, value in trace.items() if value},
    }


def read_headers(
    headers: Mapping[str, str], body: bytes, prefix: str, *, is_ascii: bool = True
) -> CloudEvent:
    """Read one whose attributes are headers, as `headers_of` writes them. Raises NotDecodable."""
    attributes = {
        name.removeprefix(prefix): unquote(value) if is_ascii else value
        for written, value in headers.items()
        if (name := written.lower()).startswith(prefix)
    }
    return _from_attributes(attributes, body)


def _attributes_of(event: CloudEvent) -> dict[str, str]:
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "partitionkey": event.subject,
        "time": "" if event.time is None else _time_text(event.time),
        "dataschema": event.dataschema,
        "traceparent": event.traceparent,
        "tracestate": event.tracestate,
    }
    return {name: value for name, value in attributes.items() if value}


def _from_attributes(found: Mapping[str, str], payload: bytes) -> CloudEvent:
    missing = [name for name in ("specversion", "id", "source", "type") if not found.get(name)]
    if missing:
        raise NotDecodable("CloudEvent", f"it has no {' and no '.join(missing)}")
    if not found["specversion"].startswith("1."):
        raise NotDecodable(
            "CloudEvent", f"its specversion is {found['specversion']!r}, and 1.0 is known here"
        )
    text = found.get("time", "")
    try:
        time = datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise NotDecodable("CloudEvent", f"its time is {text!r}") from error
    return CloudEvent(
        id=found["id"],
        source=found["source"],
        type=found["type"],
        payload=payload,
        subject=found.get("partitionkey") or found.get("subject", ""),
        time=time if time is None or time.tzinfo is not None else time.replace(tzinfo=UTC),
        dataschema=found.get("dataschema", ""),
        traceparent=found.get("traceparent", ""),
        tracestate=found.get("tracestate", ""),
    )


def _source_of(stream: str) -> str:
    return f"/streams/{quote(stream)}"


def _schema_of(kind: str, version: int) -> str:
    return f"{_SCHEMA}{quote(kind)}:{version}"


def _time_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
