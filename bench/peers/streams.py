"""Appends to an event stream beside publishes to NATS JetStream, each waited for.

    python -m bench.peers.streams [--events 20000] [--repeats 3]

Needs what tests/bridges needs (`pip install -e .[test]`). So many callers append one event each, again
and again, and wait for each: until it is on disk (Perdure), or acknowledged (JetStream).

What is promised differs: JetStream's default syncs its files every two minutes, so that a power
loss takes what it acknowledged since; `sync_interval: always` syncs before it acknowledges.
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
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure import Engine

from ..streams import Reading, readings

CALLERS = 200
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


async def append_to_jetstream(folder: Path, events: int, sync: str) -> float:
    import nats

    with jetstream_server(folder, sync) as url:
        connection = await nats.connect(url)
        jetstream = connection.jetstream(timeout=60)
        await jetstream.add_stream(name="READINGS", subjects=["readings.>"])

        def append(reading: Reading) -> Awaitable[object]:
            body = json.dumps({"meter": reading.meter, "value": reading.value}).encode()
            return jetstream.publish(f"readings.{reading.meter}", body)

        try:
            return await by_callers(append, events)
        finally:
            await connection.close()


ROWS: tuple[tuple[str, Callable[[Path, int], Awaitable[float]]], ...] = (
    ("Perdure on SQLite: synced, each commit", append_to_perdure),
    (
        "JetStream, sync_interval: always",
        lambda path, n: append_to_jetstream(path, n, "sync_interval: always"),
    ),
    ("JetStream, default: synced every 2 minutes", lambda path, n: append_to_jetstream(path, n, "")),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    found: list[list[float]] = [[] for _ in ROWS]
    for _ in range(asked.repeats):  # in turns: what else the machine does falls on all of them
        for (_, measure), values in zip(ROWS, found, strict=True):
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                values.append(asyncio.run(measure(Path(folder), asked.events)))
    ours = statistics.median(found[0])
    for (name, _), values in zip(ROWS, found, strict=True):
        middle = statistics.median(values)
        print(f"{name}: {middle:,.0f} events/s, {middle / ours:.2f} of Perdure's")


if __name__ == "__main__":
    main()
