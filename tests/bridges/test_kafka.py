"""Relays to Kafka and intakes from it, by librdkafka and its own cluster for tests."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest

from perdure import Event, Stream
from perdure.bridges import Intake, Message, Outgoing, Relay, kafka
from perdure.core.events import DeadKind
from perdure.testing import Harness
from tests.bridges.conftest import events_of, values
from tests.streams.conftest import numbers
from tests.streams.events import Paid, Placed, parked

LONG_S = 20
Config = dict[str, Any]


@pytest.fixture
def topic() -> str:
    return f"shop-{next(numbers)}"


@pytest.fixture
def consumer(cluster: Config) -> Iterator[Any]:
    """The test's own, of all that is published."""
    consumer = confluent_kafka.Consumer({**cluster, "group.id": "test", "auto.offset.reset": "earliest"})
    yield consumer
    consumer.close()


async def published(consumer: Any, topic: str, count: int) -> list[Any]:
    """So many messages, once they are there."""
    messages: list[Any] = []
    partitions: Any = None
    async with asyncio.timeout(20):
        while not partitions:  # nothing has been published there yet
            known = await asyncio.to_thread(consumer.list_topics, topic, 10)
            partitions = known.topics[topic].partitions
        consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in partitions])
        while len(messages) < count:
            messages += await asyncio.to_thread(consumer.consume, count, 0.2)
    assert not [message.error() for message in messages if message.error()]
    return messages


def produce(cluster: Config, topic: str, *messages: tuple[str, bytes | None], headers: Any = None) -> None:
    """(key, body) of each; they are there when this returns."""
    producer = confluent_kafka.Producer(cluster)
    for key, body in messages:
        producer.produce(topic, key=key, value=body, headers=headers)
    assert producer.flush(20) == 0


def placed_bodies(key: str, first: int, end: int) -> list[tuple[str, bytes]]:
    return [(key, json.dumps({"order": key, "amount": n}).encode()) for n in range(first, end)]


async def test_events_go_out_as_cloud_events_with_their_key_and_in_its_order(
    harness: Harness, orders: Stream[Placed | Paid], cluster: Config, topic: str, consumer: Any
) -> None:
    relay: Relay[Any] = kafka.relay(orders, cluster, topic=topic)
    await harness.append(orders, Placed("ä", 1), id="first", source="till/3")
    await harness.append_batch(orders, [Placed(f"k{n % 5}", n) for n in range(200)])
    messages = await published(consumer, topic, 201)

    first = next(message for message in messages if message.key() == "ä".encode())
    headers = dict(first.headers())
    assert json.loads(first.value()) == {"order": "ä", "amount": 1}
    assert headers.pop("ce_time").endswith(b"Z")
    assert headers == {
        "ce_specversion": b"1.0", "ce_id": b"first", "ce_source": b"till/3", "ce_type": b"order.placed",
        "ce_partitionkey": "ä".encode(), "ce_subject": "ä".encode(),
        "ce_dataschema": b"urn:perdure:event:order.placed:1",
        "content-type": b"application/json",
    }  # fmt: skip
    of_key = defaultdict[bytes, list[int]](list)
    for message in sorted(messages, key=lambda one: (one.partition(), one.offset())):
        of_key[message.key()].append(json.loads(message.value())["amount"])
    assert [of_key[f"k{key}".encode()] for key in range(5)] == [[*range(key, 200, 5)] for key in range(5)]
    assert relay.name == "kafka"


async def test_an_event_that_kafka_can_never_take_is_parked_and_others_go_on(
    harness: Harness, orders: Stream[Placed | Paid], cluster: Config, topic: str, consumer: Any
) -> None:
    def name(event: Outgoing) -> str:
        return {"fine": topic, "large": topic}[event.key]

    kafka.relay(orders, {**cluster, "message.max.bytes": 2_000}, topic=name)

    await harness.append_batch(orders, [Placed("unknown"), Placed("large", 10**3_000), Placed("fine")])
    await published(consumer, topic, 1)
    await harness.until(lambda: harness.engine.is_quiet)
    await harness.settle()

    assert await parked(harness, orders.name, "kafka") == [(1, DeadKind.FAILED), (2, DeadKind.FAILED)]


async def test_events_wait_for_a_cluster_that_is_away_and_a_drain_does_not(
    harness: Harness, orders: Stream[Placed | Paid], cluster: Config, topic: str, consumer: Any
) -> None:
    nowhere = {"bootstrap.servers": "127.0.0.1:1"}
    away = kafka.relay(orders, nowhere, topic=topic)

    await harness.append_batch(orders, [Placed("a", 1), Placed("a", 2), Placed("b", 3)])
    await harness.settle()
    await harness.engine.drain(60)
    here = kafka.relay(Stream(orders.name, Placed | Paid), cluster, topic=topic, name="here")
    await harness.restart()
    messages = await published(consumer, topic, 3)

    assert sorted(json.loads(message.value())["amount"] for message in messages) == [1, 2, 3]
    for relay in (away, here):
        assert await parked(harness, orders.name, relay.name) == []


async def test_messages_become_events_each_partition_in_its_order(
    harness: Harness, placed: Stream[Placed], cluster: Config, topic: str
) -> None:
    seen = defaultdict[str, list[int]](list)
    intake: Intake[Placed] = kafka.intake(placed, cluster, topic=topic, group=topic)

    @placed.on()
    async def note(event: Event[Placed]) -> None:
        seen[event.key].append(event.data.amount)

    produce(cluster, topic, *(one for key in "abcdefg" for one in placed_bodies(key, 0, 100)))
    await harness.until(lambda: sum(map(len, seen.values())) == 700)

    assert seen == {key: list(range(100)) for key in "abcdefg"}
    row = events_of(harness, placed)[0][0]
    assert (row.source, row.id.partition("@")[0].partition("/")[2]) == (f"kafka:{topic}", "0")
    assert (note.name, intake.stream) == ("note", f"kafka:{topic}")


async def test_what_is_taken_in_once_does_not_come_again_after_a_crash(
    harness: Harness, placed: Stream[Placed], cluster: Config, topic: str
) -> None:
    kafka.intake(placed, cluster, topic=topic, group=topic)

    produce(cluster, topic, *placed_bodies("a", 0, 50))
    await harness.until(lambda: len(values(harness, placed)) == 50)
    await harness.until(lambda: remembered(cluster, topic) == 50)
    await harness.crash()
    produce(cluster, topic, *placed_bodies("a", 50, 60))
    await harness.until(lambda: len(values(harness, placed)) >= 60)

    assert [one.amount for one in values(harness, placed)] == list(range(60))


def remembered(cluster: Config, topic: str) -> int:
    """How many messages the intake's group is past."""
    consumer = confluent_kafka.Consumer({**cluster, "group.id": topic})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    places = [confluent_kafka.TopicPartition(topic, number) for number in partitions]
    offsets = [max(0, place.offset) for place in consumer.committed(places, timeout=10)]
    consumer.close()
    return sum(offsets)


async def test_what_was_written_and_not_acknowledged_is_one_event(
    harness: Harness, placed: Stream[Placed], cluster: Config, topic: str
) -> None:
    kafka.intake(placed, cluster, topic=topic, group=topic)
    await harness.open_once()
    harness.store.fail_after_commit()

    produce(cluster, topic, *placed_bodies("a", 0, 5))
    await harness.until(lambda: harness.engine.driver.committer.error is not None)
    before = len(values(harness, placed))
    await harness.restart()
    produce(cluster, topic, *placed_bodies("a", 5, 6))
    await harness.until(lambda: values(harness, placed)[-1:] == [Placed("a", 5)])

    assert before > 0
    assert [one.amount for one in values(harness, placed)] == list(range(6))


async def test_what_cannot_be_read_is_kept_beside_and_what_means_nothing_is_left_out(
    harness: Harness, placed: Stream[Placed], cluster: Config, topic: str
) -> None:
    def decode(message: Message) -> Placed | None:
        return Placed(message.key, int(message.data)) if message.data else None

    intake = kafka.intake(placed, cluster, topic=topic, group=topic, decode=decode)

    produce(cluster, topic, ("a", b"1"), ("a", None), ("a", b"\xff"), ("a", b"4"), headers=[("h", b"\xff")])
    await harness.until(lambda: len(values(harness, placed)) == 2)
    await harness.until(lambda: values(harness, intake.rejected))
    (rejected,) = values(harness, intake.rejected)

    assert values(harness, placed) == [Placed("a", 1), Placed("a", 4)]
    assert (rejected.data, rejected.key, rejected.position) == (b"\xff", "a", 2)
    assert rejected.headers == {"h": "\\xff"}


async def test_cloud_events_are_known_by_their_id(
    harness: Harness, orders: Stream[Placed | Paid], cluster: Config, topic: str
) -> None:
    kafka.intake(orders, cluster, topic=topic, group=topic)
    headers = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "till", "ce_type": "order.paid"}

    produce(cluster, topic, ("a", b'{"order": "a"}'), ("a", b'{"order": "a"}'), headers=headers)
    produce(cluster, topic, ("a", b'{"order": "a"}'), headers={**headers, "ce_id": "2"})
    await harness.until(lambda: len(values(harness, orders)) >= 2)

    assert [(row.source, row.id, value) for row, value in events_of(harness, orders)] == [
        ("till", "1", Paid("a")), ("till", "2", Paid("a")),
    ]  # fmt: skip


async def test_an_intake_waits_for_its_topic(
    harness: Harness, placed: Stream[Placed], cluster: Config, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.intake(placed, cluster, topic=topic, group=topic)
    await harness.open_once()
    await harness.until(lambda: "cannot be read" in caplog.text)

    produce(cluster, topic, *placed_bodies("a", 0, 3))
    await harness.advance(LONG_S)
    await harness.until(lambda: len(values(harness, placed)) == 3)

    assert [one.amount for one in values(harness, placed)] == [0, 1, 2]
