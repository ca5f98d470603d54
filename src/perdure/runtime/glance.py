"""The glance: one question a second to a server, in place of all that a worker wants to know regularly.

Are there free runs, has a worker died, was something sent to this one's runs, do the streams that
its handlers read go on; and, when it is time, the lease is renewed with it. Only what it finds is
looked for. So a worker with nothing to do costs one statement a second, whatever the number
of runs, workers and streams.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..stores.sight import Sight
from .inbox import Inbox
from .lease import LeaseKeeper
from .subscriptions import Subscriptions

if TYPE_CHECKING:
    from .driver import Driver


class Glance:
    """Asks it, one question at a time."""

    def __init__(
        self, driver: Driver, inbox: Inbox, keeper: LeaseKeeper, subscriptions: Subscriptions
    ) -> None:
        self._driver: Driver = weakref.proxy(driver)
        self._inbox = inbox
        self._keeper = keeper
        self._subscriptions = subscriptions
        self._asking = False

    def ask(self) -> None:
        """Ask now, unless the last question has not been answered yet."""
        driver = self._driver
        if self._asking or driver.stopped:
            return
        self._asking = True
        lease, now_ms, workflows = driver.lease, driver.clock.now_ms(), driver.registry.names()
        after, until_ms = self._inbox.after, self._keeper.wanted_until_ms()
        reading = self._subscriptions.reading()
        driver.reads.ask(
            lambda store: store.glance(
                lease,
                workflows=workflows,
                after=after,
                now_ms=now_ms,
                until_ms=until_ms,
                reading=reading,
            ),
            lambda seen: self._seen(seen, renewed=until_ms > 0),
        )

    def _seen(self, seen: Sight | Exception, *, renewed: bool) -> None:
        self._asking = False
        driver = self._driver
        if driver.stopped:
            return
        if isinstance(seen, Exception):
            driver.complain(seen, "looking whether there is something to do")
            return  # the lease is renewed by a commit then, which is tried again and again
        if renewed:
            self._keeper.was_renewed()
        if seen.messages:
            driver.look_for_messages()
        if seen.runs:
            driver.look_for_runs()
        if seen.events:
            self._subscriptions.look()
        if seen.awaited:
            self._subscriptions.giving.look()
