"""A pytest plugin that delays threads at random: `scripts/test -p tests.shaking tests/runtime`.

A slow machine does the same, but seldom where it matters. What fails with it is a test that counts
on a thread being quick, or a race of ours. `PERDURE_SHAKE` is the seed of the delays; which thread
draws which is chance.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from asyncio import BaseEventLoop
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from random import Random
from typing import Any, Final

_SHARE: Final = 0.3
_LONGEST_S: Final = 0.05

_chance = Random(os.environ.get("PERDURE_SHAKE", ""))
_submit = ThreadPoolExecutor.submit
_call_soon = BaseEventLoop.call_soon_threadsafe


def _nap() -> None:
    if _chance.random() < _SHARE:
        time.sleep(_chance.random() * _LONGEST_S)


def _submit_late(
    pool: ThreadPoolExecutor, work: Callable[..., Any], /, *of: Any, **named: Any
) -> Future[Any]:
    def late(*of: Any, **named: Any) -> Any:
        _nap()
        return work(*of, **named)

    return _submit(pool, late, *of, **named)


def _call_later(
    loop: BaseEventLoop, callback: Callable[..., object], *of: Any, context: Context | None = None
) -> asyncio.Handle:
    if threading.get_ident() != getattr(loop, "_thread_id", None):
        _nap()
    return _call_soon(loop, callback, *of, context=context)


def pytest_configure() -> None:
    ThreadPoolExecutor.submit = _submit_late  # type: ignore[method-assign]
    BaseEventLoop.call_soon_threadsafe = _call_later  # type: ignore[method-assign]
