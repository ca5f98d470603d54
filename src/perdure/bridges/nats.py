"""NATS JetStream: `relay` publishes events to it, `intake` appends its messages to a stream.

Needs `pip install 'perdure[nats]'`; the client is loaded when a worker serves a bridge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from ..blocks.cloudevents import message_headers
from ..blocks.stream import Stream
from ..errors import BrokerUnavailable, StreamError
from .intake import Decode, Dedup, Intake
from .message import Message
from .patience import Patience, load
from .relay import Address, Outgoing, Relay, Unrelayable, address_of

if TYPE_CHECKING:
    from ..runtime.driver import Driver

__all__ = ["intake", "relay"]

E = TypeVar("E")
T = TypeVar("T")

_ANSWER_MAY_TAKE_S = 5.0
_LOOK_EVERY_S = 0.1
_BATCH = 500
_WAIT_FOR_NEWS_S = 0.5
_EPOCH = datetime.fromtimestamp(0, UTC)
_TOO_LARGE = 10054
"""JetStream's code for a message that is larger than its stream allows."""


def relay(
    stream: Stream[E],
    servers: str | Sequence[str],
    *,
    subject: Address,
    name: str = "nats",
    only: Iterable[type[E]] = (),
    begin: Literal["first", "next"] = "first",
    **options: Any,
) -> Relay[E]:
    """Publish a stream's events to JetStream, in their keys' order, each at least once.

    - `subject`: one for all events, or a function of an `Outgoing` that says it for each. A
      JetStream stream must listen on it.
    - `name`: by which the relay's place in the stream is kept.
    - `only`: events of these types; by default all.
    - `begin`: where a new relay begins: with the `"first"` event that is kept, or the `"next"`.
    - `options` go to `nats.connect`: `user_credentials`, `tls`, …

    An event goes out as a CloudEvent in binary mode, with a `Nats-Msg-Id` that is the same
    whenever it is published again, so that JetStream drops it within its `duplicate_window`.
    It counts as handled when JetStream has acknowledged it. While the server is away events
    wait; one that is too large for it, or whose subject is none, is parked.
    """
    return Relay(
        stream, name=name, only=only, begin=begin,
        connect=lambda driver: _Link(driver, f"relaying {stream.name} to {name}", servers, subject, options),
    )  # fmt: skip


def intake(
    into: Stream[E],
    servers: str | Sequence[str],
    *,
    source: str,
    consumer: str,
    subject: str = "",
    decode: Decode[E] | None = None,
    dedup: Dedup = "id",
    **options: Any,
) -> Intake[E]:
    """Append the messages of a JetStream stream, in its order; each becomes one event.

    - `source`: the JetStream stream. `consumer`: the durable consumer that remembers how far
      it is; it is made when there is none, for all messages, or those of `subject`.
    - `decode`: what a message means, a value of the stream's types or None to leave it out. By
      default a CloudEvent's data, or the JSON of the stream's one type. What it raises, and a
      value that does not fit, puts the message into `<stream>.rejected`.
    - `dedup`: by what a message that comes again is known: `"id"` is that of the CloudEvent
      with its source, or the `Nats-Msg-Id`, or else its place; `"position"` always its place.
    - `options` go to `nats.connect`.

    A message is acknowledged when its event is on disk. While the server or the JetStream
    stream is away it is tried again.
    """

    async def connect(driver: Driver) -> _Source:
        return await _Source.open(servers, options, source=source, consumer=consumer, subject=subject)

    return Intake(
        into, place=f"nats:{source}", name=consumer, decode=decode, dedup=dedup,
        prefix="ce-", is_ascii=True, connect=connect,
    )  # fmt: skip


class _Connection:
    """One that ends when it is lost: then another one is made, as at the start."""

    def __init__(self) -> None:
        self._client: Any = None
        self.jetstream: Any = None

    @classmethod
    async def open(cls, servers: str | Sequence[str], options: dict[str, Any]) -> _Connection:
        """Raises what the client raises when no server answers."""
        self = cls()
        wanted = [servers] if isinstance(servers, str) else list(servers)
        ours = {
            "allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.1,
            "error_cb": _be_quiet,
        }  # fmt: skip
        options = {"servers": wanted, "name": "perdure", **options, **ours}
        self._client = await load("nats", "nats").connect(**options)
        self.jetstream = self._client.jetstream(timeout=_ANSWER_MAY_TAKE_S)
        return self

    @property
    def is_closed(self) -> bool:
        """Whether it was lost, or closed."""
        return not self._client.is_connected

    async def until_closed(self, asking: Coroutine[Any, Any, T]) -> T:
        """The answer; raises BrokerUnavailable soon after the connection is lost."""
        task = asyncio.ensure_future(asking)
        try:
            while not task.done():
                # Looked at, because the client's callback may not come: its own closing can fail.
                await asyncio.wait((task,), timeout=_LOOK_EVERY_S)
                if self.is_closed:
                    break
        finally:
            task.cancel()
        if not task.done() or task.cancelled():  # the client may cancel it, too
            raise BrokerUnavailable("The connection to NATS was lost.")
        return task.result()

    async def flush(self) -> None:
        """Return when the server has what was sent."""
        await self._client.flush(timeout=_ANSWER_MAY_TAKE_S)

    async def close(self) -> None:
        """Let it go, whatever state it is in."""
        with suppress(Exception):
            await asyncio.wait_for(self._client.close(), _ANSWER_MAY_TAKE_S)


async def _be_quiet(error: Exception) -> None:
    """Whoever uses the connection hears of it, too."""


class _Link:
    """Publishes."""

    def __init__(
        self,
        driver: Driver,
        doing: str,
        servers: str | Sequence[str],
        subject: Address,
        options: dict[str, Any],
    ) -> None:
        self._patience = Patience(driver, doing)
        self._servers = servers
        self._subject = subject
        self._options = options
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()

    async def publish(self, event: Outgoing) -> None:
        """See `Link.publish`."""
        subject = address_of(self._subject, event)
        headers = message_headers(event.row, event.stream, "ce-")
        headers["ce-datacontenttype"] = "application/json"
        headers["Nats-Msg-Id"] = f"{quote(event.stream)} {headers['ce-source']} {headers['ce-id']}"
        while True:
            self._patience.check()
            try:
                connection = await self._open()
                await connection.until_closed(
                    connection.jetstream.publish(
                        subject, event.payload, timeout=_ANSWER_MAY_TAKE_S, headers=headers
                    )
                )
            except Exception as error:
                if _is_for_good(error):
                    raise Unrelayable(f"NATS does not take it on {subject!r}: {error}") from error
                await self._patience.wait(error)
            else:
                self._patience.over()
                return

    async def _open(self) -> _Connection:
        async with self._opening:
            if self._connection is None or self._connection.is_closed:
                self._patience.check()
                self._connection = await _Connection.open(self._servers, self._options)
            return self._connection

    def release(self) -> None:
        """See `Link.release`."""
        self._patience.end()

    async def close(self) -> None:
        """See `Link.close`."""
        self._patience.end()
        if self._connection is not None:
            await self._connection.close()


def _is_for_good(error: Exception) -> bool:
    """Whether it is about the message, and not about the server."""
    errors = load("nats.errors", "nats")
    return (
        isinstance(error, (errors.MaxPayloadError, errors.BadSubjectError, errors.BadHeaderError))
        or getattr(error, "err_code", None) == _TOO_LARGE
    )


class _Source:
    """Messages of a durable consumer, in the order of the JetStream stream.

    JetStream sends what was delivered and not acknowledged again only after a while, and
    newer messages before it. So what a worker that died had in hand is read from the
    JetStream stream itself, before anything new; and a delivery that is missing ends the
    connection, so that it is found in the same way.
    """

    def __init__(self, connection: _Connection, subscription: Any, info: Any) -> None:
        self._connection = connection
        self._subscription = subscription
        self._stream: str = info.stream_name
        config = info.config
        self._subjects: list[str] = config.filter_subjects or [config.filter_subject or ">"]
        self._next = info.ack_floor.stream_seq + 1
        """From here on what was delivered may not be on disk."""
        self._delivered: int = info.delivered.stream_seq
        self._deliveries: int = info.delivered.consumer_seq
        """How many there have been."""

    @classmethod
    async def open(
        cls,
        servers: str | Sequence[str],
        options: dict[str, Any],
        *,
        source: str,
        consumer: str,
        subject: str,
    ) -> _Source:
        connection = await _Connection.open(servers, options)
        try:
            info = await _consumer(connection.jetstream, source, consumer, subject)
            subscription = await connection.jetstream.pull_subscribe_bind(consumer=consumer, stream=source)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, subscription, info)

    async def fetch(self) -> list[Message]:
        """See `Source.fetch`."""
        if self._next <= self._delivered:
            return await self._fetch_delivered()
        try:
            found = await self._connection.until_closed(
                self._subscription.fetch(_BATCH, timeout=_WAIT_FOR_NEWS_S)
            )
        except TimeoutError:
            return []
        for message in found:
            self._deliveries += 1
            if message.metadata.sequence.consumer != self._deliveries:
                raise BrokerUnavailable("A delivery of NATS was lost on its way; it is read again.")
        return [_delivered(message) for message in found]

    async def _fetch_delivered(self) -> list[Message]:
        """What was delivered before, and may have been lost."""
        messages: list[Message] = []
        while self._next <= self._delivered and len(messages) < _BATCH:
            found = [one for subject in self._subjects if (one := await self._first_of(subject)) is not None]
            first = min(found, key=lambda one: one.seq, default=None)
            if first is None or first.seq > self._delivered:
                self._next = self._delivered + 1
                break
            messages.append(_stored(first))
            self._next = first.seq + 1
        return messages

    async def _first_of(self, subject: str) -> Any:
        errors = load("nats.js.errors", "nats")
        try:
            return await self._connection.jetstream.get_msg(
                self._stream, seq=self._next, subject=subject, next=True
            )
        except errors.NotFoundError:
            return None

    async def acknowledge(self, messages: list[Message]) -> None:
        """See `Source.acknowledge`. Without an answer: one that is lost is a message that comes again."""
        await self._connection.until_closed(self._tell(messages))

    async def _tell(self, messages: list[Message]) -> None:
        for message in messages:
            if message.receipt is not None:
                await message.receipt.ack()
        await self._connection.flush()

    async def close(self) -> None:
        """See `Source.close`."""
        await self._connection.close()


async def _consumer(jetstream: Any, source: str, consumer: str, subject: str) -> Any:
    """The durable consumer, which is made if there is none."""
    api, errors = load("nats.js.api", "nats"), load("nats.js.errors", "nats")
    try:
        info = await jetstream.consumer_info(source, consumer)
    except errors.NotFoundError:
        wanted = api.ConsumerConfig(
            durable_name=consumer, ack_policy=api.AckPolicy.EXPLICIT, filter_subject=subject or None
        )
        return await jetstream.add_consumer(source, wanted)
    if info.config.deliver_subject or info.config.ack_policy != api.AckPolicy.EXPLICIT:
        raise StreamError(
            f"Consumer {consumer!r} of JetStream stream {source!r} is not one that is pulled from and "
            "acknowledged message by message.",
            hint="Name another one, or delete it: one that fits is made.",
        )
    return info


def _delivered(message: Any) -> Message:
    metadata = message.metadata
    tokens = message.reply.split(".")
    # The metadata's own time has been through a float.
    nanoseconds = int(tokens[7] if len(tokens) == 9 else tokens[9])
    time_ms = nanoseconds // 1_000_000
    return _message(
        message.subject, metadata.sequence.stream, time_ms, message.headers, message.data, message
    )


def _stored(found: Any) -> Message:
    time_ms = (found.time - _EPOCH) // timedelta(milliseconds=1)
    return _message(found.subject, found.seq, time_ms, found.headers, found.data, None)


def _message(
    subject: str, place: int, time_ms: int, headers: dict[str, str] | None, data: bytes | None, receipt: Any
) -> Message:
    headers = headers or {}
    return Message(
        topic=subject,
        partition=0,
        position=place,
        time_ms=time_ms,
        key="",
        headers=headers,
        data=data or b"",
        id=headers.get("Nats-Msg-Id", ""),
        receipt=receipt,
    )
