"""`unsubscribe`: forgetting a handler whose code is gone; till then its stream keeps what it has not done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ...client import Client
from ...errors import StreamError
from ...streaming.lagging import Lag
from .endings import BadInput, with_client
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption
from .output import many, print_json, say


def unsubscribe(
    which: Annotated[str, typer.Argument(metavar="STREAM/HANDLER", help="Which handler, or shadow.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it; else it is only said what goes.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Forget a handler that is gone for good.

    Its place goes, and what it has parked.
    """
    stream, slash, name = which.rpartition("/")

    async def work(client: Client) -> None:
        if not slash or not stream or not name:
            raise BadInput(f"{which!r} names no handler.", hint="Write STREAM/HANDLER.")
        subscription = client.subscription(name, stream)
        lag = await subscription.lag()
        if yes:
            await subscription.remove()
        elif worker := _worker_of(lag):
            raise StreamError(
                f"Worker {worker!r} serves {which}.",
                hint="Remove the handler from the code first, and deploy that.",
            )
        if as_json:
            found = {"stream": stream, "handler": name, "events": lag.events, "parked": lag.parked}
            print_json({**found, "is_done": yes})
            return
        print(f"{which} {'is' if yes else 'would be'} forgotten.")
        print(f"  not done, and kept for it no longer: {_events(lag)}")
        print(f"  parked: {many(lag.parked, 'event')}")
        if not yes:
            say("")
            say("hint: Nothing was done. Do it with --yes. Served again, it begins as a new handler does.")

    with_client(work, store=store, debug=debug)


def say_unserved(lags: Sequence[Lag], *, are_named: bool) -> None:
    """Which handlers hold up their streams and are nobody's: if others are served, or they were named."""
    is_any_served = any(map(_worker_of, lags))
    for lag in lags:
        if lag.events and not _worker_of(lag) and (are_named or is_any_served):
            which = f"{lag.stream}/{lag.handler}"
            say(f"No worker serves {which}: its stream keeps for it what it has not done, {_events(lag)}.")
            say(f"hint: If its code is gone for good: perdure unsubscribe {which}")


def _worker_of(lag: Lag) -> str:
    return next((lane.worker for lane in lag.lanes if lane.worker), "")


def _events(lag: Lag) -> str:
    return f"{'' if lag.is_exact else 'about '}{many(lag.events, 'event')}"
