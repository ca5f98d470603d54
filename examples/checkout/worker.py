"""A process that brings one order on its way, and may be killed while it does.

SHOP_URL=http://127.0.0.1:8000 python -m examples.checkout.worker --store checkout.db --order '{…}'
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from perdure import Engine
from perdure.errors import RunFailed

from .workflow import Order, checkout


async def work(store: Path, order: Order) -> int:
    async with Engine(f"sqlite:///{store}") as engine:
        run = await engine.start(checkout(order), id=order.id)
        try:
            await run.result()
        except RunFailed as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.checkout.worker")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--order", required=True, help="the order as a JSON object")
    options = parser.parse_args()
    order = msgspec.json.decode(options.order, type=Order)
    return asyncio.run(work(options.store.resolve(), order))


if __name__ == "__main__":
    sys.exit(main())
