"""What an engine and a client open for a `temporal://` URL: a door, and behind an engine's a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from temporalio.worker import Worker

from ..runtime.registry import Registry
from .address import connect, read_address
from .cluster import Cluster
from .door import TemporalDoor
from .steps import Steps
from .workflows import Hosts, make_step_worker, make_worker


async def open_door(url: str) -> TemporalDoor:
    """Connect. Raises StoreUnavailable for a bad URL, no server, or a namespace that is not there."""
    address = read_address(url)
    return TemporalDoor(Cluster(await connect(address), address))


async def open_worker(
    url: str,
    registry: Registry,
    on_fatal: Callable[[BaseException], None],
    *,
    capacity: int,
    residents_kept: int,
    tags: Sequence[str],
) -> TemporalDoor:
    """Connect, and serve the URL's task queue, and those of `tags`, until the door is closed.

    Raises as `open_door`.
    """
    address = read_address(url)
    client = await connect(address)
    steps, hosts = Steps(address.lost_after_s), Hosts(registry, address.lost_after_s)
    workers = [
        make_worker(client, address, hosts, steps, capacity=capacity, residents_kept=residents_kept),
        *(make_step_worker(client, address, steps, tag, capacity=capacity) for tag in tags),
    ]
    serving = _Serving(workers, hosts, steps, on_fatal)
    return TemporalDoor(Cluster(client, address), define=registry.add, stop=serving.stop)


class _Serving:
    """Temporal workers at work."""

    def __init__(
        self, workers: Sequence[Worker], hosts: Hosts, steps: Steps, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._workers = workers
        self._hosts = hosts
        self._steps = steps
        self._on_fatal = on_fatal
        self._tasks = [asyncio.get_running_loop().create_task(worker.run()) for worker in workers]
        for task in self._tasks:
            task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fatal(error)

    async def stop(self) -> None:
        """Let go of the task queues. Steps under way are cancelled, and run again elsewhere."""
        for worker, task in zip(self._workers, self._tasks, strict=True):
            with suppress(Exception):  # who waits has heard of it by on_fatal
                await worker.shutdown()
                await task
        self._hosts.drop_all()
        await self._steps.stop()
