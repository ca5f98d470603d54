"""Brokers for these tests: a real NATS server, and the Kafka cluster that librdkafka brings for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import nats
import pytest

from perdure import Stream
from perdure.blocks.serving import _defined
from perdure.core.events import EventRow
from perdure.testing import Harness
from tests.streams.conftest import harness, numbers
from tests.streams.events import Paid, Placed

__all__ = ["harness"]  # on each kind of store


@pytest.fixture(autouse=True)
def leave_no_handlers() -> Iterator[None]:
    """Bridges are known as long as they live: engines of other tests would serve them."""
    yield
    _defined._handlers.clear()


@pytest.fixture
def orders() -> Stream[Placed | Paid]:
    return Stream(f"orders-{next(numbers)}", Placed | Paid, key=lambda one: one.order)


@pytest.fixture
def placed() -> Stream[Placed]:
    """A stream of one type, so that any JSON of it will do."""
    return Stream(f"placed-{next(numbers)}", Placed, key=lambda one: one.order)


class NatsServer:
    """A server with JetStream, on one port and one folder all its lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._connections: list[Any] = []

    def start(self) -> None:
        """Returns when it answers."""
        program = shutil.which(
            "nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        assert program is not None
        place = ["-a", "127.0.0.1", "-p", str(self._port), "-sd", str(self._folder)]
        self._process = subprocess.Popen([program, "-js", *place], stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if b"Server is ready" in line:
                return
        raise AssertionError(f"the server ended with {self._process.wait()}")

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    async def jetstream(self) -> Any:
        """The test's own way to it."""
        connection = await nats.connect(self.url, error_cb=_be_quiet, max_reconnect_attempts=-1)
        self._connections.append(connection)
        return connection.jetstream()

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
        self.kill()


async def _be_quiet(error: Exception) -> None:
    pass


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """Not started yet."""
    server = NatsServer(tmp_path / "jetstream")
    yield server
    await server.close()


@pytest.fixture
async def shop(server: NatsServer) -> Any:
    """JetStream, with a stream SHOP of the subjects `shop.>`."""
    server.start()
    jetstream = await server.jetstream()
    await jetstream.add_stream(name="SHOP", subjects=["shop.>"])
    return jetstream


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, Any]]:
    """Says how to reach a cluster of one broker, as configurations do."""
    owner = confluent_kafka.Producer(
        {"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0}
    )
    brokers = owner.list_topics(timeout=10).brokers.values()
    yield {"bootstrap.servers": ",".join(f"{broker.host}:{broker.port}" for broker in brokers)}
    owner.flush(1)


def events_of(harness: Harness, stream: Stream[Any]) -> list[tuple[EventRow, Any]]:
    """All that stands in a stream, and what it means."""
    page = harness.store.store.streams.events(stream.name, after=0, limit=10_000)
    return [(row, stream.decode(row)) for row in page.events]


def values(harness: Harness, stream: Stream[Any]) -> list[Any]:
    return [value for _, value in events_of(harness, stream)]
