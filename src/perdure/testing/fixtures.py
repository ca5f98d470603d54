"""What the pytest plugin's fixtures do; `pytest_perdure` has their names.

A harness belongs to the event loop of its test, and which that is, only the
plugin that runs the test knows (pytest-asyncio, anyio, or ours). So the fixtures
are plain ones, and the test itself is wrapped: the engine opens and closes inside
it. A fixture of the user's that talks to the harness opens it before.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import Any

import pytest

from .harness import Harness

_HARNESSES = pytest.StashKey[list[Harness]]()


def provide_harness(
    request: pytest.FixtureRequest, *, time_flies: bool, path: str | None = None
) -> Generator[Harness]:
    """The fixtures' body."""
    harness = Harness(path, time_flies=time_flies)
    harnesses = request.node.stash.setdefault(_HARNESSES, [])
    harnesses.append(harness)
    yield harness
    harnesses.remove(harness)  # pytest keeps the test, and with it the list, to the end of the session
    harness.abandon()


def open_inside(item: pytest.Function) -> None:
    """Wrap an async test, so that its harnesses are open in it and closed after it."""
    harnesses = item.stash.get(_HARNESSES, None)
    test = item.obj
    if harnesses and inspect.iscoroutinefunction(test) and not hasattr(test, "__perdure__"):
        item.obj = _wrap(item, test, harnesses)


def _wrap(
    item: pytest.Function, test: Callable[..., Coroutine[Any, Any, None]], harnesses: list[Harness]
) -> Callable[..., Coroutine[Any, Any, None]]:
    @wraps(test)
    async def with_engines(*args: Any, **kwargs: Any) -> None:
        await _run_with_engines(item, test(*args, **kwargs), harnesses)

    with_engines.__perdure__ = True  # type: ignore[attr-defined]
    return with_engines


async def _run_with_engines(
    item: pytest.Function, test: Coroutine[Any, Any, None], harnesses: list[Harness]
) -> None:
    try:
        for harness in harnesses:
            await harness.open_once()
        await test
    except BaseException:
        journals = [harness.journals() for harness in harnesses if harness.engine.is_open]
        item.add_report_section("call", "perdure", "\n\n".join(journals))
        raise
    finally:
        test.close()
        for harness in harnesses:
            await harness.stop()


def run_if_async(item: pytest.Function) -> bool | None:
    """Run the test if it is async; None leaves it to others."""
    if not inspect.iscoroutinefunction(item.obj):
        return None
    names = inspect.signature(item.obj).parameters
    asyncio.run(item.obj(**{name: value for name, value in item.funcargs.items() if name in names}))
    return True
