"""The process that is killed: it puts departures into windows, and starts the alerts.

python -m examples.flights_live.worker --store flights.db
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from perdure import Engine

from .hours import alert_by


async def serve(store: str) -> None:
    """Until it is asked to stop."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    async with Engine(f"sqlite:///{store}") as engine:
        handler = alert_by(engine)
        print(f"serving {handler.name}", flush=True)
        await asked.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.flights_live.worker")
    parser.add_argument("--store", required=True, help="Perdure's file")
    asyncio.run(serve(parser.parse_args().store))
    return 0


if __name__ == "__main__":
    sys.exit(main())
