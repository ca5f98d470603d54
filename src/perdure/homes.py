"""Homes for runs that are no store of ours: which URL means one, and the door to it.

None stands for "no, open a store". The libraries of a home are imported when its URL is met.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

from .doors import Door
from .errors import PerdureError, StoreUnavailable
from .runtime.registry import Registry


async def open_home(url: str) -> Door | None:
    """The door to the home that `url` names. Raises StoreUnavailable where it cannot be reached."""
    if not _is_temporal(url):
        return None
    from .temporal.home import open_door

    return await open_door(url)


async def open_working_home(
    url: str,
    registry: Registry,
    on_fatal: Callable[[BaseException], None],
    *,
    capacity: int,
    residents_kept: int,
    tags: Sequence[str],
    is_simulated: bool,
) -> Door | None:
    """The same, with a worker that serves it until the door is closed; `on_fatal` hears what stopped it.

    `is_simulated`: the engine was given a clock or chance of its own, and no cluster can follow those.
    """
    if not _is_temporal(url):
        return None
    if is_simulated:
        raise PerdureError(
            f"Engine({url!r}, clock=…, source=…): a Temporal cluster has its own time and chance.",
            hint="Leave clock and source out; test with a store.",
        )
    from .temporal.home import open_worker

    return await open_worker(
        url, registry, on_fatal, capacity=capacity, residents_kept=residents_kept, tags=tags
    )


def _is_temporal(url: str) -> bool:
    if url.partition("://")[0] != "temporal":
        return False
    if importlib.util.find_spec("temporalio") is None:
        raise StoreUnavailable(
            f"{url!r} needs the package temporalio, which is not installed.",
            hint="Run: pip install 'perdure[temporal]'",
        )
    return True
