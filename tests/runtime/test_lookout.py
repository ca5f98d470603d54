"""When a worker looks for what others wrote: at once when it hears of it, and not at every word."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from perdure.runtime.lookout import Lookout
from perdure.testing import Harness


async def test_many_hints_at_once_are_answered_by_one_look(harness: Harness) -> None:
    looks: list[str] = []
    store: Any = harness.store
    lookout = Lookout(store, lambda: looks.append("messages"), lambda: looks.append("runs"), list, list)

    threads = [threading.Thread(target=lookout._hear) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()  # the loop stands still meanwhile, however long that is
    await harness.until(lambda: looks)
    first = list(looks)
    before = asyncio.get_running_loop().time()
    lookout._hear()
    await harness.until(lambda: len(looks) > len(first))
    lookout.stop()

    assert first == ["messages", "runs"]
    assert asyncio.get_running_loop().time() - before > 0.005


async def test_nobody_is_told_after_the_stop(harness: Harness) -> None:
    looks: list[str] = []
    store: Any = harness.store
    lookout = Lookout(store, lambda: looks.append("messages"), lambda: looks.append("runs"), list, list)

    lookout._hear()
    await asyncio.sleep(0)
    lookout.stop()
    await asyncio.sleep(0)

    assert looks == []
