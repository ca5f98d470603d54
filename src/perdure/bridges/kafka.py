"""Kafka: `relay` publishes events to a topic, `intake` appends a topic's messages to a stream.

Needs `pip install 'perdure[kafka]'`, which is Confluent's client; it is loaded when a
worker serves a bridge. It has threads of its own, and is asked on one of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..blocks.cloudevents import message_headers
from ..blocks.stream import Stream
from ..errors import BrokerUnavailable
from ..runtime.threads import Threads
from .intake import Decode, Dedup, Intake
from .message import Message
from .patience import Patience, load
from .relay import Address, Outgoing, Relay, Unrelayable, address_of

if TYPE_CHECKING:
    from ..runtime.driver import Driver

__all__ = ["intake", "relay"]

E = TypeVar("E")

_log = logging.getLogger("perdure.kafka")
_log.setLevel(logging.ERROR)  # the client tells of every connection that ends

_BATCH = 500
_POLL_S = 0.2
_ANSWER_MAY_TAKE_S = 5.0
_LOOK_EVERY_MS = 60_000
_DELIVERY_MAY_TAKE_MS = 30_000


def relay(
    stream: Stream[E],
    config: Mapping[str, Any],
    *,
    topic: Address,
    name: str = "kafka",
    only: Iterable[type[E]] = (),
    begin: Literal["first", "next"] = "first",
) -> Relay[E]:
    """Publish a stream's events to Kafka, in their keys' order, each at least once.

    - `config`: librdkafka's, with `bootstrap.servers` at least. The producer is idempotent and
      waits for all replicas.
    - `topic`: one for all events, or a function of an `Outgoing` that says it for each. An
      event's key is the message's.
    - `name`: by which the relay's place in the stream is kept.
    - `only`: events of these types; by default all.
    - `begin`: where a new relay begins: with the `"first"` event that is kept, or the `"next"`.

    An event goes out as a CloudEvent in binary mode; its `ce_source` and `ce_id` are the same
    whenever it is published again. It counts as handled when Kafka has acknowledged it. While
    Kafka is away events wait; one that is too large for it is parked.
    """
    return Relay(
        stream, name=name, only=only, begin=begin,
        connect=lambda driver: _Link(driver, f"relaying {stream.name} to {name}", dict(config), topic),
    )  # fmt: skip


def intake(
    into: Stream[E],
    config: Mapping[str, Any],
    *,
    topic: str,
    group: str,
    decode: Decode[E] | None = None,
    dedup: Dedup = "id",
) -> Intake[E]:
    """Append a topic's messages to a stream, each partition in its order; each becomes one event.

    - `config`: librdkafka's, with `bootstrap.servers` at least.
    - `group`: the consumer group that remembers how far it is. It is the intake's alone, has no
      members, and begins with the first message that Kafka keeps.
    - `decode`: what a message means, a value of the stream's types or None to leave it out. By
      default a CloudEvent's data, or the JSON of the stream's one type. What it raises, and a
      value that does not fit, puts the message into `<stream>.rejected`.
    - `dedup`: by what a message that comes again is known: `"id"` is that of the CloudEvent
      with its source, or else its partition and offset; `"position"` always these.

    The group's offset goes past a message when its event is on disk. While Kafka or the topic
    is away it is tried again.
    """

    async def connect(driver: Driver) -> _Source:
        return _Source(driver, dict(config), topic, group)

    return Intake(
        into, place=f"kafka:{topic}", name=group, decode=decode, dedup=dedup,
        prefix="ce_", is_ascii=False, connect=connect,
    )  # fmt: skip


class _Link:
    """Publishes."""

    def __init__(self, driver: Driver, doing: str, config: dict[str, Any], topic: Address) -> None:
        self._patience = Patience(driver, doing)
        self._config = {
            "message.timeout.ms": _DELIVERY_MAY_TAKE_MS, **config, "enable.idempotence": True, "acks": "all",
        }  # fmt: skip
        self._topic = topic
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(self._loop)
        self._producer: Any = None
        self._polling: asyncio.Task[None] | None = None

    async def publish(self, event: Outgoing) -> None:
        """See `Link.publish`."""
        topic = address_of(self._topic, event)
        headers = message_headers(event.row, event.stream, "ce_", is_ascii=False)
        headers["content-type"] = "application/json"
        while True:
            self._patience.check()
            error = await self._send(topic, event, headers)
            if error is None:
                self._patience.over()
                return
            if error.code() in _codes("MSG_SIZE_TOO_LARGE", "TOPIC_EXCEPTION", "INVALID_MSG_SIZE"):
                raise Unrelayable(f"Kafka does not take it on topic {topic!r}: {error.str()}")
            if error.fatal():  # such a producer says so of everything from now on
                await self._let_go()
            await self._patience.wait(BrokerUnavailable(f"Kafka does not answer: {error.str()}."))

    async def _send(self, topic: str, event: Outgoing, headers: dict[str, str]) -> Any:
        """None when Kafka has it; else what is wrong."""
        told: asyncio.Future[Any] = self._loop.create_future()

        def on_delivery(error: Any, message: Any) -> None:
            self._loop.call_soon_threadsafe(lambda: told.done() or told.set_result(error))

        library = load("confluent_kafka", "kafka")
        try:
            self._open(library).produce(
                topic, value=event.payload, key=event.key or None, headers=headers,
                timestamp=event.row.time_ms, on_delivery=on_delivery,
            )  # fmt: skip
        except library.KafkaException as error:
            return error.args[0]
        return await told

    def _open(self, library: Any) -> Any:
        if self._producer is None:
            self._producer = library.Producer(self._config, logger=_log)
            self._polling = self._loop.create_task(self._poll(self._producer))
        return self._producer

    async def _poll(self, producer: Any) -> None:
        """Let the client tell what became of messages."""
        while producer is self._producer:
            await self._threads.call(lambda: producer.poll(_POLL_S))

    async def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None and self._polling is not None:
            producer.purge()  # what it has in hand is published again
            await asyncio.wait([self._polling])

    def release(self) -> None:
        """See `Link.release`."""
        self._patience.end()
        if self._producer is not None:
            self._producer.purge(in_flight=False)

    async def close(self) -> None:
        """See `Link.close`."""
        self._patience.end()
        await self._let_go()
        self._threads.stop()


def _codes(*names: str) -> set[int]:
    library = load("confluent_kafka", "kafka")
    return {getattr(library.KafkaError, name) for name in names}


class _Source:
    """Messages of a topic, whose positions the group remembers.

    The group has no members: that one worker at a time takes in is the store's affair, so
    the next one need not wait until Kafka believes that the last one is dead.
    """

    def __init__(self, driver: Driver, config: dict[str, Any], topic: str, group: str) -> None:
        self._library = load("confluent_kafka", "kafka")
        self._clock = driver.clock
        self._threads = Threads(asyncio.get_running_loop())
        self._topic = topic
        self._consumer: Any = self._library.Consumer(
            {"auto.offset.reset": "earliest", **config, "group.id": group, "enable.auto.commit": False},
            logger=_log,
        )
        self._assigned: set[int] = set()
        self._look_at_ms = 0
        """When to see next whether the topic has got more partitions."""

    async def fetch(self) -> list[Message]:
        """See `Source.fetch`."""
        if self._clock.now_ms() >= self._look_at_ms:
            await self._assign()
        found: list[Any] = await self._threads.call(lambda: self._consumer.consume(_BATCH, _POLL_S))
        for message in found:
            if message.error() is not None:
                raise BrokerUnavailable(f"Kafka: {message.error().str()}.")
        return [_message(message) for message in found]

    async def _assign(self) -> None:
        """Read all partitions of the topic, each from where the group remembers, or from its beginning."""
        known = await self._threads.call(lambda: self._consumer.list_topics(self._topic, _ANSWER_MAY_TAKE_S))
        metadata = known.topics[self._topic]
        if metadata.error is not None or not metadata.partitions:
            reason = "it has no partitions" if metadata.error is None else metadata.error.str()
            raise BrokerUnavailable(f"Kafka's topic {self._topic!r} cannot be read: {reason}.")
        new = metadata.partitions.keys() - self._assigned
        if new:
            stored = self._library.OFFSET_STORED
            wanted = [self._library.TopicPartition(self._topic, number, stored) for number in sorted(new)]
            await self._threads.call(lambda: self._consumer.incremental_assign(wanted))
            self._assigned |= new
        self._look_at_ms = self._clock.now_ms() + _LOOK_EVERY_MS

    async def acknowledge(self, messages: list[Message]) -> None:
        """See `Source.acknowledge`."""
        library = self._library
        ends = {message.partition: message.position + 1 for message in messages}  # the last of each counts
        offsets = [library.TopicPartition(self._topic, partition, end) for partition, end in ends.items()]
        for kept in await self._threads.call(
            lambda: self._consumer.commit(offsets=offsets, asynchronous=False)
        ):
            if kept.error is not None:
                raise BrokerUnavailable(f"Kafka does not keep the group's offsets: {kept.error.str()}.")

    async def close(self) -> None:
        """See `Source.close`."""
        await self._threads.call(self._consumer.close)
        self._threads.stop()


def _message(found: Any) -> Message:
    _, time_ms = found.timestamp()
    return Message(
        topic=found.topic(),
        partition=found.partition(),
        position=found.offset(),
        time_ms=max(0, time_ms),
        key=_text(found.key()),
        headers={name: _text(value) for name, value in found.headers() or ()},
        data=found.value() or b"",
        id="",
    )


def _text(value: bytes | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else value.decode(errors="backslashreplace")
