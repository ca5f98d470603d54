"""Handlers as the engines of a crash run serve them: their functions are called through a watch.

It says when an event is about to be handled, and when that has been done, so that the worker can die there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from copy import copy
from hashlib import blake2b
from inspect import isawaitable
from typing import Any

from ...blocks.event import Event
from ...blocks.handler import Handler
from ...core.positions import place_at
from ...errors import StoreUnavailable
from ...runtime.attempt import current_attempt
from ...runtime.subscriptions import Subscribing
from .world import Effect, World


def watched(handlers: Iterable[Subscribing], world: World, is_gone: Callable[[], bool]) -> list[Subscribing]:
    """The same, whose functions are called through a watch; windows and joins have none with an effect."""
    return [_watch(one, world, is_gone) if type(one) is Handler else one for one in handlers]


def _watch(handler: Handler[Any], world: World, is_gone: Callable[[], bool]) -> Handler[Any]:
    calls = _Calls(handler, world, is_gone)
    same = copy(handler)  # which no other engine serves
    same.fn, same.is_async = (calls.in_transaction, False) if handler.in_transaction else (calls.call, True)
    return same


class _Calls:
    """Calls the function of one handler."""

    def __init__(self, handler: Handler[Any], world: World, is_gone: Callable[[], bool]) -> None:
        self._handler = handler
        self._world = world
        self._is_gone = is_gone

    async def call(self, event: Event[Any]) -> Any:
        function = self._handler.fn
        begun = self._begin(event)
        if begun is None:
            await _never()
            return None
        try:
            value = function(event) if self._handler.is_async else await asyncio.to_thread(function, event)
            if isawaitable(value):
                value = await value
        except asyncio.CancelledError:
            self._end(begun)
            raise
        except BaseException:
            if self._dies_after(event, begun, failed=True):
                await _never()
            raise
        if self._dies_after(event, begun):
            await _never()
        return value

    def in_transaction(self, event: Event[Any], connection: Any) -> Any:
        # What it starts and appends has other seeds and ids each time; here a crash is to change nothing.
        info = current_attempt.get().info()
        info._seed = blake2b(info.key.encode(), digest_size=16).digest()  # pyright: ignore[reportPrivateUsage]
        begun = self._begin(event)
        if begun is None:
            raise dead()
        has_failed = True
        try:
            value = self._handler.fn(event, connection)
            has_failed = False
            return value
        finally:
            if self._dies_after(event, begun, failed=has_failed):
                raise dead()  # and so nothing of it is written

    def _begin(self, event: Event[Any]) -> Effect | None:
        """Note the call; None when the worker is dead, or dies here."""
        world, handler = self._world, self._handler
        if self._is_gone():
            return None
        if world.reach(self._moment(event), "before-effect"):
            world.die()
            return None
        if not handler.in_transaction:
            world.deliveries.learn()
        wrong = world.deliveries.wrong(handler, event)
        if wrong:
            world.complain(wrong)
        return world.handled(handler.name, event)

    def _dies_after(self, event: Event[Any], begun: Effect, *, failed: bool = False) -> bool:
        """Note that the function has come to its end; whether the worker is dead."""
        self._end(begun)
        if not failed:
            place = (event.stream, self._handler.name, place_at(event.position))
            self._world.deliveries.returned.add(place)
        if self._is_gone():
            return True
        if self._world.reach(self._moment(event), "after-effect"):
            self._world.die()
            return True
        return False

    def _end(self, begun: Effect) -> None:
        self._world.came_to_its_end(begun)
        self._world.handling -= 1

    def _moment(self, event: Event[Any]) -> str:
        name = f"{event.stream}/{self._handler.name}/{place_at(event.position)}"
        return name if event.attempt == 1 else f"{name}~{event.attempt}"


async def _never() -> None:
    """Until the task is cancelled."""
    await asyncio.get_running_loop().create_future()


def dead() -> StoreUnavailable:
    """What a worker hears that has died."""
    return StoreUnavailable("This worker has been crashed; nothing was written.")
