"""Gives events to the runs that wait for them, at a store where appends do not do so themselves.

Law: whatever is there to compare is compared, by this worker or another, soon after it was told of
or seen by a glance. What is compared, and who is given what, is the store's to say.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from ..stores.correlation import Given
from .pause import Pause

if TYPE_CHECKING:
    from .driver import Driver


class Giving:
    """Compares, one page at a time."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Driver = weakref.proxy(driver)
        self._is_looking = False
        self._look_again = False
        self._held_back = Pause(asyncio.get_running_loop(), self.look)
        self._stopped = False

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being compared, or waits to be."""
        return not (self._is_looking or self._held_back.is_waiting)

    def look(self) -> None:
        """See whether there is something to give."""
        if self._is_looking:
            self._look_again = True
        elif not (self._stopped or self._driver.stopped):
            self._is_looking = True
            self._driver.reads.ask(lambda store: store.streams.look_for_awaited(), self._found)

    def stop(self) -> None:
        """Look no more: the driver goes, and a pause may still be under way."""
        self._stopped = True

    def tell(self) -> None:
        """Runs may have been given events: bring them that."""
        self._driver.look_for_messages()
        self._driver.look_for_runs()  # which may be nobody's

    def _found(self, news: Any | Exception | None) -> None:
        driver = self._driver
        if news is None or isinstance(news, Exception) or driver.stopped:
            self._given(news)
            return
        lease = driver.lease
        driver.committer.ask_between(lambda store: store.streams.give_awaited(lease, news), self._given)

    def _given(self, found: Given | Exception | None) -> None:
        self._is_looking = False
        driver = self._driver
        if driver.stopped:
            return
        if isinstance(found, Exception):
            driver.complain(found, "giving events to runs that wait for them")
            return  # a glance will see that there still is something
        for message in () if found is None else found.messages:
            driver.children.deliver(message)
        if self._look_again or (found is not None and found.is_more):
            self._look_again = False
            self._held_back.reset()
            self.look()
        elif found is not None and found.is_held_back:
            self._held_back.begin()
