"""`Engine` and `Client` for code without asyncio: scripts, Flask, Django, threads.

    from perdure.sync import Engine

    with Engine("sqlite:///shop.db") as engine:
        run = engine.start(checkout(order), id="order-17")
        receipt = run.result(timeout=60)

Behind each stands the one that awaits, on an event loop in a thread of its own;
the methods hand it the work and block until it is done. They may be called from
any thread. The law: no call waits for a loop that is gone, and none is made from
where it would block the loop that is to answer it.
"""

from .clients import Client, Engine
from .runs import Run
from .subscription import Subscription

__all__ = ["Client", "Engine", "Run", "Subscription"]
