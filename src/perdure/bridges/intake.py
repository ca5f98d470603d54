"""`Intake`: messages of a broker become events of a stream. What is common to all brokers.

Law: a message is acknowledged when what it became is on disk: an event, or a `Rejected`
in the stream's side stream, for one that cannot be read. So none is lost and none holds
up the others. A message that comes again has the same id, and is one event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from ..blocks.cloudevents import STRUCTURED, CloudEvent, read_headers
from ..blocks.event import event, moment
from ..blocks.options import as_text
from ..blocks.serving import define
from ..blocks.stream import Stream
from ..blocks.tracing import trace_from
from ..core.events import EventRow, NewEvent, SubscriptionRow
from ..errors import DefinitionError, NotDecodable
from ..runtime.subscriptions import Served
from ..stores.base import Store
from .intaking import Intaking
from .message import Message, Source

if TYPE_CHECKING:
    from ..runtime.driver import Driver

E = TypeVar("E")

Dedup = Literal["id", "position"]


@event("perdure.rejected")
@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that could not become an event of the stream: all of it, and why."""

    reason: str
    topic: str
    partition: int
    position: int
    key: str
    headers: Mapping[str, str]
    data: bytes


Decode = Callable[[Message], E | None]
"""What a message means; None: nothing, and it is acknowledged and left out."""


class Intake(Generic[E]):
    """Appends a broker's messages to a stream; made by `nats.intake` or `kafka.intake`.

    One worker at a time takes them in, in the order of their partitions; when it dies
    another goes on. It is served as a handler is, for as long as the stream lives.
    """

    def __init__(
        self,
        into: Stream[E],
        *,
        place: str,
        name: str,
        decode: Decode[E] | None,
        dedup: Dedup,
        prefix: str,
        is_ascii: bool,
        connect: Callable[[Driver], Awaitable[Source]],
    ) -> None:
        # `place` names the topic or stream outside: `kafka:payments`.
        if dedup not in ("id", "position"):
            raise DefinitionError(f"Intake {name!r}: dedup={dedup!r}; it is 'id' or 'position'.")
        self.into = into
        """The stream that it appends to."""
        self.rejected: Stream[Rejected] = Stream(f"{into.name}.rejected", Rejected)
        """Where messages stand that could not become events."""
        self.stream = as_text(place, "An intake's place")
        self.name = as_text(name, "An intake's name")
        self.lanes = 1  # which one worker has
        self.from_start = True
        self.is_intake = True
        self.other = ""
        self.connect = connect
        self._decode = decode
        self._dedup = dedup
        self._prefix = prefix
        self._is_ascii = is_ascii
        into.bridges.append(self)
        define(self)

    def check(self, store: Store) -> None:
        """Nothing of the store is read."""

    def serve(self, driver: Driver, row: SubscriptionRow) -> Served:
        """Take messages in, once this worker has the lane; for the runtime."""
        return Intaking(driver, self, row)

    def read(self, message: Message, now_ms: int) -> NewEvent | None:
        """The event that a message becomes; None for one that is left out. Raises what is wrong with it."""
        wrapped = self._unwrap(message)
        if self._decode is not None:
            value = self._decode(message)
            if value is None:
                return None
        else:
            value = self._read_value(wrapped, message)
        id, source = self._identity(message, wrapped)
        time = moment(message.time_ms) if wrapped is None else wrapped.time
        trace = _trace_of(message, wrapped)
        return self.into.new_event(value, "", now_ms, id=id, time=time, source=source, trace=trace)

    def reject(self, message: Message, reason: str, now_ms: int) -> NewEvent:
        """What is kept of a message that became no event."""
        rejected = Rejected(
            reason=reason,
            topic=message.topic,
            partition=message.partition,
            position=message.position,
            key=message.key,
            headers=dict(message.headers),
            data=message.data,
        )
        id, time = _place_of(message), moment(message.time_ms)
        return self.rejected.new_event(rejected, "", now_ms, id=id, time=time, source=self.stream)

    def _unwrap(self, message: Message) -> CloudEvent | None:
        """None for a message that is no CloudEvent. Raises NotDecodable."""
        names = {name.lower(): name for name in message.headers}
        content_type = message.headers.get(names.get("content-type", ""), "")
        if content_type.lower().startswith(STRUCTURED):
            return CloudEvent.from_json(message.data)
        if f"{self._prefix}specversion" not in names:
            return None
        return read_headers(message.headers, message.data, self._prefix, is_ascii=self._is_ascii)

    def _read_value(self, wrapped: CloudEvent | None, message: Message) -> E:
        if wrapped is not None:
            return wrapped.read(self.into)
        known = list(self.into.kinds.values())
        if len(known) != 1:
            raise NotDecodable(
                "message", f"it is no CloudEvent, and stream {self.into.name!r} has several types of event"
            )
        ((type_name, version),) = known
        return self.into.decode(EventRow(0, "", "", type_name, version, "", 0, 0, "", message.data))

    def _identity(self, message: Message, wrapped: CloudEvent | None) -> tuple[str, str]:
        """The id and source by which a message that comes again is known."""
        if self._dedup == "id" and wrapped is not None:
            return wrapped.id, wrapped.source
        if self._dedup == "id" and message.id:
            return message.id, self.stream
        return _place_of(message), self.stream

    def __repr__(self) -> str:
        return f"<intake {self.name} of {self.stream} into {self.into.name}>"


def _trace_of(message: Message, wrapped: CloudEvent | None) -> str:
    """That of the event; else that of the message which brought it."""
    if wrapped is not None and wrapped.traceparent:
        return trace_from(wrapped.traceparent, wrapped.tracestate)
    headers = {name.lower(): value for name, value in message.headers.items()}
    return trace_from(headers.get("traceparent", ""), headers.get("tracestate", ""))


def _place_of(message: Message) -> str:
    # With its time: where a topic was deleted and made anew, its offsets begin again.
    return f"{message.partition}/{message.position}@{message.time_ms}"
