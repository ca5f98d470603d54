"""A worker with bridges, for tests that kill it: `python -m tests.bridges.program STORE BROKER`.

BROKER is `nats://…`, or how librdkafka reaches Kafka. What comes in on `shop.in` goes into the stream
`bridged`, and from there out to `shop.out`.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from perdure import Engine, Stream
from perdure.bridges import kafka, nats
from tests.streams.events import Placed

bridged: Stream[Placed] = Stream("bridged", Placed, key=lambda one: one.order)


async def serve(store: str, broker: str) -> None:
    """Until it is killed."""
    if broker.startswith("nats://"):
        nats.intake(bridged, broker, source="SHOP", consumer="perdure", subject="shop.in")
        nats.relay(bridged, broker, subject="shop.out")
    else:
        config = {"bootstrap.servers": broker}
        kafka.intake(bridged, config, topic="shop.in", group="perdure")
        kafka.relay(bridged, config, topic="shop.out")
    async with Engine(store) as engine:
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await engine.serve()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(*sys.argv[1:]))
