"""`events`: what a stream keeps."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import typer

from ...blocks.event import Event
from ...client import Client
from ...streaming.reading import StreamPage
from .endings import with_client
from .options import DEFAULT_STORE, PLACE_HELP, DebugOption, JsonOption, StoreOption, read_place
from .output import clock_time, console, print_json, say, shorten

_PAGE = 500
_LOOKS_EVERY_S = 0.5
_NARROWEST = 20


def events(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream's name.")],
    begin: Annotated[str, typer.Option("--from", metavar="PLACE", help=PLACE_HELP)] = "earliest",
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only those of this key.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many at most.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="All there are, and each that comes, until Ctrl-C.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the events that a stream keeps, in order.

    Nothing is handled by it. With --json each is a line.
    """

    async def work(client: Client) -> None:
        place, shown = read_place(begin, now_ms=client.now_ms()), 0
        at_once = _PAGE if follow or key is not None else min(_PAGE, limit + 1)
        while True:
            page: StreamPage[Any] = await client.events(stream, place, limit=at_once)
            place = page.next
            for event in page.events:
                if key is not None and event.key != key:
                    continue
                if shown == limit and not follow:
                    say(f"hint: There are more: --from {event.position}")
                    return
                shown += 1
                _show(event, as_json=as_json)
            if not page.events:
                if not follow:
                    break
                await asyncio.sleep(_LOOKS_EVERY_S)
        if not shown:
            say(f"Stream {stream!r} keeps no such event.")

    with_client(work, store=store, debug=debug)


def _show(event: Event[Any], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "position": event.position,
                "id": event.id,
                "source": event.source,
                "type": event.type,
                "version": event.version,
                "key": event.key,
                "time": event.time,
                "appended_at": event.appended_at,
                "trace_parent": event.trace_parent,
                "trace_state": event.trace_state,
                "data": event.data,
            }
        )
        return
    head = f"{event.position}  {clock_time(event.time)}  {event.type}  {event.key}  "
    data = msgspec.json.encode(event.data)
    print(head + shorten(data, max(_NARROWEST, console().width - len(head))), flush=True)
