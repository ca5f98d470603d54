"""A process that brings one order on its way, and may be killed while it does.

SHOP_URL=http://127.0.0.1:8000 python -m examples.checkout.worker --store sqlite:///checkout.db --order '{…}'
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from perdure import Engine
from perdure.errors import RunFailed

from .workflow import Order, checkout


async def work(store: str, order: Order) -> int:
    async with Engine(store) as engine:
        run = await engine.start(checkout(order), id=order.id)
        try:
            await run.result()
        except RunFailed as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.checkout.worker")
    parser.add_argument("--store", required=True, help="where runs are kept: sqlite:///checkout.db")
    parser.add_argument("--order", required=True, help="the order as a JSON object")
    options = parser.parse_args()
    order = msgspec.json.decode(options.order, type=Order)
    return asyncio.run(work(options.store, order))


if __name__ == "__main__":
    sys.exit(main())
