"""Event streams beside NATS JetStream, and beside FastStream on it: events appended, and events handled.

    python -m bench.peers.streams [--events 20000] [--repeats 3]

Needs what tests/bridges needs (`pip install -e .[test]`), and `pip install "faststream[nats]==0.7.8"`.

*Appended*: so many callers append one event each, again and again, and wait for each: until it is on disk
(Perdure), or acknowledged (JetStream).
*Handled*: events that wait are given to an async function, one by one, and acknowledged when it returns.
FastStream is given a durable pull consumer that fetches many, and so has the order of the whole stream.

What is promised differs. JetStream's default syncs its files every two minutes, so that a power
loss takes what it acknowledged since; `sync_interval: always` syncs before it acknowledges. Perdure
keeps the order of each key while 256 events are in hand, and what has been handled is on disk.
"""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from perdure import Engine

from ..streams import Reading, handle_all, readings

CALLERS = 200
_FETCHED = 256
_ALWAYS = "sync_interval: always"


async def by_callers(append: Callable[[Reading], Awaitable[object]], events: int) -> float:
    """Events a second."""

    async def call(caller: int) -> None:
        for number in range(events // CALLERS):
            await append(Reading(f"meter-{caller}", number))

    began = time.perf_counter()
    await asyncio.gather(*map(call, range(CALLERS)))
    return events // CALLERS * CALLERS / (time.perf_counter() - began)


async def append_to_perdure(folder: Path, events: int) -> float:
    async with Engine(f"sqlite:///{folder / 'perdure.db'}", handlers=[]) as engine:
        return await by_callers(lambda reading: engine.append(readings, reading), events)


@contextmanager
def jetstream_server(folder: Path, sync: str) -> Iterator[str]:
    """Its URL. `sync`: what the configuration says of it; empty leaves the default."""
    program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    store, config = json.dumps(str(folder / "jetstream")), folder / "nats.conf"
    config.write_text(f"listen: {json.dumps(address)}\njetstream {{ store_dir: {store}\n{sync} }}\n")
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.PIPE) as server:
        try:
            assert server.stderr is not None
            if not any(b"Server is ready" in line for line in server.stderr):
                raise RuntimeError(f"nats-server ended with {server.wait()}")
            yield f"nats://{address}"
        finally:
            server.kill()


@asynccontextmanager
async def readings_of_jetstream(url: str) -> AsyncIterator[Callable[[Reading], Awaitable[object]]]:
    """What publishes to a stream that was made."""
    import nats

    connection = await nats.connect(url)
    jetstream = connection.jetstream(timeout=60)
    await jetstream.add_stream(name="READINGS", subjects=["readings.>"])

    def append(reading: Reading) -> Awaitable[object]:
        body = json.dumps({"meter": reading.meter, "value": reading.value}).encode()
        return jetstream.publish(f"readings.{reading.meter}", body, headers=_JSON)

    try:
        yield append
    finally:
        await connection.close()


async def append_to_jetstream(folder: Path, events: int, sync: str) -> float:
    with jetstream_server(folder, sync) as url:
        async with readings_of_jetstream(url) as append:
            return await by_callers(append, events)


async def handle_by_perdure(folder: Path, events: int) -> float:
    return await handle_all(f"sqlite:///{folder / 'perdure.db'}", events)


async def handle_by_faststream(folder: Path, events: int, sync: str) -> float:
    """From the start of its broker, with all events there, to the last of them handled."""
    from faststream.nats import JStream, NatsBroker, PullSub

    with jetstream_server(folder, sync) as url:
        async with readings_of_jetstream(url) as append:
            events = events // CALLERS * CALLERS
            await by_callers(append, events)
        broker = NatsBroker(url, logger=None)
        count, handled = 0, asyncio.Event()

        @broker.subscriber(
            "readings.>", stream=JStream("READINGS", declare=False), durable="handle",
            pull_sub=PullSub(batch_size=_FETCHED),
        )  # fmt: skip
        async def handle(reading: Reading) -> None:
            nonlocal count
            count += 1
            if count == events:
                handled.set()

        async with broker:
            began = time.perf_counter()
            await broker.start()
            await handled.wait()
            return events / (time.perf_counter() - began)


_JSON = {"content-type": "application/json"}
_SYNCS = (("sync_interval: always", _ALWAYS), ("default: synced every 2 minutes", ""))
Row = tuple[str, Callable[[Path, int], Coroutine[object, object, float]]]
TABLES: dict[str, tuple[Row, ...]] = {
    "appended": (
        ("Perdure on SQLite: synced, each commit", append_to_perdure),
        *((f"JetStream, {name}", partial(append_to_jetstream, sync=sync)) for name, sync in _SYNCS),
    ),
    "handled": (
        ("Perdure on SQLite: synced, each commit", handle_by_perdure),
        *(
            (f"FastStream on JetStream, {name}", partial(handle_by_faststream, sync=sync))
            for name, sync in _SYNCS
        ),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    for title, rows in TABLES.items():
        found: list[list[float]] = [[] for _ in rows]
        for _ in range(asked.repeats):  # in turns: what else the machine does falls on all of them
            for (_, measure), values in zip(rows, found, strict=True):
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    values.append(asyncio.run(measure(Path(folder), asked.events)))
        ours = statistics.median(found[0])
        print(f"{title.capitalize()}:")
        for (name, _), values in zip(rows, found, strict=True):
            middle = statistics.median(values)
            print(f"  {name}: {middle:,.0f} events/s, {middle / ours:.2f} of Perdure's")


if __name__ == "__main__":
    main()
