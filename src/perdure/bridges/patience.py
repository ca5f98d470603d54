"""Patience with a broker that is away: try again, later and later, and say each cause once.

An outage is nobody's fault among the events: nothing is parked for it, and the log
says when it began, when it is for another cause, and when it was over.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import TYPE_CHECKING, Any

from ..errors import BrokerUnavailable, StreamError

if TYPE_CHECKING:
    from ..runtime.clock import Armed
    from ..runtime.driver import Driver

_log = logging.getLogger("perdure")

_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 15.0
_HINTS = {
    "NoServersError": "Is it running, and at this address?",
    "NotFoundError": "Make the JetStream stream: an intake makes none.",
    "NoStreamResponseError": "Make a JetStream stream that has the relay's subject: a relay makes none.",
}
"""What helps against what a client raises when a person has forgotten something."""


class Patience:
    """How long to wait before the next try. Several may wait: they wait together."""

    def __init__(self, driver: Driver, doing: str) -> None:
        """`doing` is what is tried: `relaying orders to nats`."""
        self._driver = driver
        self._doing = doing
        self._failures = 0
        self._told = set[str]()
        """The causes that the log has told of since it last worked."""
        self._nap: asyncio.Future[None] | None = None
        self._armed: Armed | None = None
        self.ended = False

    async def wait(self, error: BaseException) -> None:
        """After a failure. Raises BrokerUnavailable if that was the end."""
        self.check()
        if self._nap is None:
            self._begin_nap(error)
        assert self._nap is not None
        await asyncio.shield(self._nap)  # else one who is cancelled would wake the others
        self.check()

    def over(self) -> None:
        """It worked."""
        if self._failures:
            _log.warning("It works again: %s.", self._doing)
        self._failures = 0
        self._told.clear()

    def check(self) -> None:
        """Raise BrokerUnavailable after the end."""
        if self.ended:
            raise BrokerUnavailable(f"The engine stops {self._doing}.", hint="The next worker goes on.")

    def end(self) -> None:
        """Wait no more."""
        self.ended = True
        self._wake()

    def _begin_nap(self, error: BaseException) -> None:
        driver = self._driver
        cause = type(error).__name__
        if cause not in self._told:
            self._told.add(cause)
            driver.complain(as_outage(error), f"{self._doing}, which is tried again until it works")
        full_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._failures, 20))
        self._failures += 1
        self._nap = asyncio.get_running_loop().create_future()
        # Between half of it and all: workers that lost a broker together do not come back together.
        wait_ms = round(1000 * full_s * (0.5 + driver.source.draw() / 2))
        self._armed = driver.clock.arm(driver.clock.now_ms() + wait_ms, self._wake, background=True)

    def _wake(self) -> None:
        nap, self._nap = self._nap, None
        if self._armed is not None:
            self._armed.cancel()
        if nap is not None:
            nap.set_result(None)


def as_outage(error: BaseException) -> BrokerUnavailable:
    """What a broker's client raised, as one line in a log."""
    if isinstance(error, BrokerUnavailable):
        return error
    text = str(error) or "no answer"
    cause = type(error).__name__
    told = BrokerUnavailable(
        f"The broker cannot be used: {cause}: {text.removesuffix('.')}.", hint=_HINTS.get(cause, "")
    )
    told.__cause__ = error
    return told


def load(module: str, extra: str) -> Any:
    """A broker's client library. Raises StreamError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StreamError(
            f"A bridge needs {module}, which cannot be imported: {error}.",
            hint=f"Install it: pip install 'perdure[{extra}]'.",
        ) from error
