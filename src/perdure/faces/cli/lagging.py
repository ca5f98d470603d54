"""`lag` and `seek`: how far handlers of events are, and sending one elsewhere in its stream."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from ...client import Client
from ...errors import SubscriptionNotFound
from ...streaming.lagging import Lag, LagStatus, LaneLag
from ...streaming.seeking import Seek
from .endings import BadInput, ExitCode, with_client
from .options import DEFAULT_STORE, PLACE_HELP, DebugOption, JsonOption, StoreOption, read_place
from .output import age, console, many, print_json, say
from .unsubscribing import say_unserved

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {
    LagStatus.OK: "green",
    LagStatus.WARN: "yellow",
    LagStatus.REWIND: "magenta",
    LagStatus.STALL: "red",
    LagStatus.STOP: "bold red",
}
_STUCK = (LagStatus.REWIND, LagStatus.STALL, LagStatus.STOP)
_WATCH_S = 1.0
_HOLDUP_S = 5.0

Which = Annotated[
    str, typer.Argument(metavar="STREAM[/HANDLER]", help="Only this stream, or this handler, lane by lane.")
]


def lag(
    which: Which = "",
    watch: Annotated[bool, typer.Option("--watch", help="Look again each second, until Ctrl-C.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if a handler is in stall, stop or rewind.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how far behind handlers are, and if they get on.

    All of it is in the store: no worker need run.
    """

    async def work(client: Client) -> ExitCode | None:
        lags = await _find(client, which)
        if watch:
            await _watch(client, which, as_json=as_json)
            return None
        _show(lags, as_json=as_json, by_lane="/" in which)
        if not as_json:
            await _say_holdup(client)
            say_unserved(lags, are_named="/" in which)
            if not lags:
                say("No handlers.")
        stuck = check and any(one.status in _STUCK or one.problem for one in lags)
        return ExitCode.FAILED if stuck else None

    with_client(work, store=store, debug=debug)


def seek(
    which: Annotated[str, typer.Argument(metavar="STREAM/HANDLER", help="Which handler.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="PLACE",
            help=PLACE_HELP,
        ),
    ] = "",
    event: Annotated[
        str | None, typer.Option("--event", metavar="ID", help="To the event that was appended with this id.")
    ] = None,
    source: Annotated[str, typer.Option("--source", metavar="SOURCE", help="The source of that event.")] = "",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do it; else it is only said what it does.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send a handler elsewhere in its stream: back, or on.

    Back, to have events delivered again; on, past some that it never gets. Without --yes it only
    says what would be done (a dry run).
    """
    stream, slash, name = which.rpartition("/")

    async def work(client: Client) -> None:
        if not slash or not stream or not name:
            raise BadInput(f"{which!r} names no handler.", hint="Write STREAM/HANDLER.")
        if (event is None) is (not to):
            raise BadInput("Where to?", hint="Write --to PLACE, or --event ID.")
        place = read_place(to, now_ms=client.now_ms())
        done = await client.subscription(name, stream).seek(
            place, event=event, source=source, dry_run=not yes, reason=reason, by=_who()
        )
        if as_json:
            print_json(done)
        else:
            _say_seek(which, done)

    with_client(work, store=store, debug=debug)


async def _say_holdup(client: Client) -> None:
    """Each commit holds events back for a moment: only one that takes long is worth a line."""
    found = await client.holdup()
    if found is not None and found.seconds >= _HOLDUP_S:
        say(f"No event that was appended since is delivered until it ends: {found}.")
        say(f"hint: {found.hint}")


def _say_seek(which: str, done: Seek) -> None:
    about = "" if done.is_exact else "about "
    again, skipped = many(done.again, "event"), many(done.skipped, "event")
    verb = "goes" if done.is_done else "would go"
    parked = f", {done.unparked:,} of them parked until now" if done.unparked else ""
    print(f"{which} {verb} on at {done.position}.")
    print(f"  delivered again: {about}{again}{parked}")
    print(f"  never delivered: {about}{skipped}")
    if not done.is_done:
        say("")
        say("hint: Nothing was done. Do it with --yes.")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have a user without a name
        return ""


async def _find(client: Client, which: str) -> list[Lag]:
    """Raises SubscriptionNotFound for one that is named and not there."""
    stream, slash, name = which.rpartition("/")
    lags = await client.lags()
    found = [
        one for one in lags if not which or which == one.stream or (slash and (stream, name) == _name(one))
    ]
    if which and not found:
        known = ", ".join(f"{one.stream}/{one.handler}" for one in lags) or "none"
        raise SubscriptionNotFound(
            f"No handler of {which!r} has subscribed. Subscribed are: {known}.",
            hint="A handler subscribes when an engine that serves it opens the store.",
        )
    return found


def _name(lag: Lag) -> tuple[str, str]:
    return lag.stream, lag.handler


async def _watch(client: Client, which: str, *, as_json: bool) -> None:
    from rich.live import Live

    by_lane = "/" in which
    if as_json:
        while True:
            _show(await _find(client, which), as_json=True, by_lane=by_lane)
            await asyncio.sleep(_WATCH_S)
    with suppress(asyncio.CancelledError), Live(console=console(), auto_refresh=False) as live:
        while True:
            lags = await _find(client, which)
            live.update(_table(lags), refresh=True)
            await asyncio.sleep(_WATCH_S)


def _show(lags: Sequence[Lag], *, as_json: bool, by_lane: bool) -> None:
    if as_json:
        for one in lags:
            print_json(one)
        return
    if lags:
        console().print(_table(lags))
    for one in lags:
        if one.problem:
            say(one.problem)
    if by_lane:
        console().print()
        console().print(_lanes([lane for one in lags for lane in one.lanes]))


def _table(lags: Sequence[Lag]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("HANDLER", overflow="fold")
    table.add_column("STATUS")
    for title in ("EVENTS", "BEHIND", "IN/S", "OUT/S", "DONE IN", "PARKED"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in lags:
        table.add_row(
            Text(f"{one.stream}/{one.handler}"),
            Text(one.status.value, _COLOURS[one.status]),
            f"{'' if one.is_exact else '~'}{one.events:,}",
            _age(one.seconds) if one.events else "",
            f"{one.in_per_second:,.1f}",
            f"{one.out_per_second:,.1f}",
            _drain(one),
            f"{one.parked:,} ({_age(one.parked_seconds)})" if one.parked else "",
        )
    return table


def _lanes(lanes: Sequence[LaneLag]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("LANE", "STATUS", "EVENTS", "BEHIND", "DONE UP TO", "WORKER"):
        table.add_column(title, justify="right" if title in ("LANE", "EVENTS", "BEHIND") else "left")
    for lane in lanes:
        table.add_row(
            str(lane.lane),
            Text(lane.status.value, _COLOURS[lane.status]),
            f"{lane.events:,}",
            _age(lane.seconds) if lane.events else "",
            lane.position,
            Text(lane.worker or "nobody"),
        )
    return table


def _age(seconds: float) -> str:
    return age(round(seconds * 1000))


def _drain(lag: Lag) -> str:
    if not lag.events:
        return ""
    return "never" if lag.drain_seconds is None else _age(lag.drain_seconds)
