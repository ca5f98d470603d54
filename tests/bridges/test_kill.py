"""Workers with bridges are killed again and again, and the broker too: nothing is lost, and in the store
nothing is there twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from perdure.stores.opening import open_store
from tests.bridges.conftest import NatsServer
from tests.bridges.program import bridged
from tests.bridges.test_kafka import published as published_in_kafka
from tests.streams.events import Placed

pytestmark = pytest.mark.slow

KEYS = 7
MESSAGES = 1_500
KILLS = 6

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path / 'runs.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )


@pytest.fixture
def start(store: str, checkout: Path) -> Iterator[Start]:
    """Starts a worker, which has its lease when this returns."""
    workers: list[subprocess.Popen[str]] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), *sys.path])}

    def start(broker: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.bridges.program", store, broker]
        worker = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
        )
        workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "serving\n"
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.communicate()


def taken_in(store: str) -> list[Placed]:
    opened = open_store(store, only_look=True)
    page = opened.streams.events(bridged.name, after=0, limit=1_000_000)
    opened.close()
    return [bridged.decode(row) for row in page.events]


def by_key(events: list[Placed]) -> dict[str, list[int]]:
    found = defaultdict[str, list[int]](list)
    for one in events:
        found[one.order].append(one.amount)
    return found


async def until_more(store: str, than: int) -> None:
    """Wait until the store has more events than that: that is seen from outside only by looking."""
    async with asyncio.timeout(60):
        while len(await asyncio.to_thread(taken_in, store)) <= than:
            pass


ALL = [(f"k{n % KEYS}", n) for n in range(MESSAGES)]
EACH_ONCE = {f"k{key}": [*range(key, MESSAGES, KEYS)] for key in range(KEYS)}


def body(key: str, number: int) -> bytes:
    return json.dumps({"order": key, "amount": number}).encode()


async def test_nothing_is_lost_or_doubled_when_workers_and_the_nats_server_are_killed(
    start: Start, store: str, server: NatsServer, shop: Any
) -> None:
    chance = random.Random(7)
    marks = sorted(chance.sample(range(MESSAGES), KILLS))
    worker, sent = start(server.url), 0
    for number, mark in enumerate([*marks, MESSAGES]):
        for key, amount in ALL[sent:mark]:
            await shop.publish("shop.in", body(key, amount))
        sent = mark
        if number == KILLS // 2:
            server.kill()
            server.start()
            shop = await server.jetstream()
        if mark < MESSAGES:
            await until_more(store, chance.randrange(sent) if sent < 300 else sent - 300)
            worker.kill()
            worker = start(server.url)
    await until_more(store, MESSAGES - 1)
    relayed = await shop.subscribe("shop.out", ordered_consumer=True)
    out = [await relayed.next_msg(timeout=30) for _ in range(MESSAGES)]

    assert by_key(taken_in(store)) == EACH_ONCE
    sent_out = by_key([Placed(**json.loads(message.data)) for message in out])
    assert {key: sorted(set(amounts), key=amounts.index) for key, amounts in sent_out.items()} == EACH_ONCE


async def test_nothing_is_lost_or_doubled_when_workers_on_kafka_are_killed(
    start: Start, store: str, cluster: dict[str, Any]
) -> None:
    chance = random.Random(8)
    broker = cluster["bootstrap.servers"]
    producer = confluent_kafka.Producer({**cluster, "enable.idempotence": True})
    worker, sent = start(broker), 0
    for mark in [*sorted(chance.sample(range(MESSAGES), KILLS)), MESSAGES]:
        for key, amount in ALL[sent:mark]:
            producer.produce("shop.in", key=key, value=body(key, amount))
        assert producer.flush(20) == 0
        sent = mark
        if mark < MESSAGES:
            await until_more(store, chance.randrange(sent) if sent < 300 else sent - 300)
            worker.kill()
            worker = start(broker)
    await until_more(store, MESSAGES - 1)
    consumer = confluent_kafka.Consumer({**cluster, "group.id": "test", "auto.offset.reset": "earliest"})
    out: list[Any] = []
    while len({message.value() for message in out}) < MESSAGES:
        out = await published_in_kafka(consumer, "shop.out", max(MESSAGES, len(out) + 1))
    consumer.close()

    assert by_key(taken_in(store)) == EACH_ONCE
    in_order = sorted(out, key=lambda one: (one.partition(), one.offset()))
    sent_out = by_key([Placed(**json.loads(message.value())) for message in in_order])
    assert {key: sorted(set(amounts), key=amounts.index) for key, amounts in sent_out.items()} == EACH_ONCE
