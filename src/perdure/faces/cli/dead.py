"""`dead`: events that handlers have parked: looked at, edited, redriven, discarded; and how handlers stand.

The law: nothing is redriven or discarded unless it is said twice, once by the command and once by `--yes`.
Without it the command says what it would do.
"""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from ...client import Client
from ...errors import NotParked, PerdureError
from ...streaming.dead_letters import place_at
from ...streaming.parked import kind_of
from .endings import BadInput, ExitCode, with_client
from .examples import epilog
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption, read_json
from .output import (
    add_error_column,
    add_firm_column,
    age,
    clock_time,
    console,
    many,
    print_json,
    say,
    shorten,
    to_ms,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ...streaming.parked import ParkedDetails, ParkedEvent, SubscriptionStatus
    from ...streaming.subscription import Subscription

dead = typer.Typer(
    help="Parked events: list, show, edit, redrive, discard.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Where = Annotated[
    str, typer.Argument(metavar="STREAM/HANDLER", help="Whose: the stream, and the handler's name.")
]
Position = Annotated[str, typer.Argument(metavar="POSITION", help="Where the event stands in its stream.")]
Positions = Annotated[
    list[str] | None,
    typer.Argument(metavar="POSITION", help="Which events; else those of --key, or --all."),
]
KeyOption = Annotated[str | None, typer.Option("--key", "-k", metavar="KEY", help="Only events of this key.")]
AllOption = Annotated[bool, typer.Option("--all", help="All that is parked.")]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do it. Otherwise it is only said what would be done.")
]
ByOption = Annotated[
    str, typer.Option("--by", metavar="NAME", help="Who does it; by default the user that is logged in.")
]
WhyOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")]

_SHOWN = 10
"""So many positions of what would be done."""


@dead.command("list", epilog=epilog("dead list"))
def list_dead(
    where: Annotated[
        str | None, typer.Argument(metavar="STREAM/HANDLER", help="Whose; else how all handlers stand.")
    ] = None,
    key: KeyOption = None,
    reason: Annotated[
        str | None,
        typer.Option(
            "--reason", "-r", metavar="REASON", help="Only these: failed, unreadable, crashed or behind."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many at most.")] = 50,
    page: Annotated[
        str | None, typer.Option("--page", metavar="POSITION", help="The page after the one that named it.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List what a handler has parked, or how all stand.

    Without STREAM/HANDLER one line for each handler: whether it goes on, and how many events it has parked.
    """

    async def work(client: Client) -> None:
        if where is None:
            await _list_handlers(client, as_json=as_json)
            return
        _check_words(() if page is None else (page,), reason)
        found = await _subscription(client, where).parked(key=key, reason=reason, after=page, limit=limit)
        if as_json:
            for one in found:
                print_json(one)
        elif found:
            _print_parked(found, client.now_ms())
        else:
            say("Nothing is parked.")
        if len(found) == limit:
            say(f"There may be more: --page {found[-1].position}")

    with_client(work, store=store, debug=debug)


@dead.command(epilog=epilog("dead show"))
def show(
    where: Where,
    position: Position,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a parked event: its data, its error, what was done to it."""

    async def work(client: Client) -> None:
        _check_words([position])
        details = await _subscription(client, where).show(position)
        if as_json:
            print_json(details)
        else:
            _print_details(details)

    with_client(work, store=store, debug=debug)


@dead.command(epilog=epilog("dead edit"))
def edit(
    where: Where,
    position: Position,
    data: Annotated[
        str, typer.Argument(metavar="JSON", help="What to deliver instead: '{…}', @FILE, - (stdin).")
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")],
    by: ByOption = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Have other data delivered in place of a parked event's.

    It is delivered when the event is redriven. The original is kept, and so are all edits.
    """

    async def work(client: Client) -> None:
        subscription = _subscription(client, where)
        _check_words([position])
        _want_reason(reason)
        await subscription.edit(position, read_json(data), reason=reason, by=by or _user())
        if as_json:
            print_json({"edited": position})
        else:
            say(f"The edit is on disk. To deliver it: perdure dead redrive {where} {position} --yes")

    with_client(work, store=store, debug=debug)


@dead.command(epilog=epilog("dead redrive"))
def redrive(
    where: Where,
    positions: Positions = None,
    key: KeyOption = None,
    all: AllOption = False,
    yes: YesOption = False,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", help="Hand over so many events a second at most.")
    ] = None,
    max_failures: Annotated[
        int, typer.Option("--max-failures", metavar="N", min=1, help="Stop when so many have failed again.")
    ] = 5,
    reason: WhyOption = "",
    by: ByOption = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Deliver parked events again. Without --yes it only says which (a dry run)."""
    if [bool(positions), key is not None, all].count(True) != 1:
        raise typer.BadParameter("say which events: POSITION…, --key KEY, or --all.")

    async def work(client: Client) -> ExitCode:
        subscription = _subscription(client, where)
        _check_words(positions or ())
        if rate is not None and rate <= 0:
            raise BadInput(
                f"--rate {rate:g} hands nothing over.", hint="Give a number above 0, or no --rate."
            )
        done = await subscription.redrive(
            positions or None, key=key, dry_run=not yes, rate=rate, max_failures=max_failures,
            reason=reason, by=by or _user(),
        )  # fmt: skip
        if not done.is_stopped:
            _say_others(where, positions or (), done.events)
        if as_json:
            print_json(done)
        elif not yes:
            _say_dry_run("redrive", done.events)
        elif not done.events:
            say("There is nothing to redrive.")
        else:
            if not await client.workers():
                say("No worker is running on this store: events are handled when one starts.")
            say(f"{many(len(done.events), 'event')} handed over, {done.failed} of them failed again so far.")
            if done.is_stopped:
                say("Too many: the others stay parked.")
        return ExitCode.FAILED if done.is_stopped else ExitCode.OK

    with_client(work, store=store, debug=debug)


@dead.command(epilog=epilog("dead discard"))
def discard(
    where: Where,
    positions: Positions = None,
    key: KeyOption = None,
    yes: YesOption = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")] = "",
    by: ByOption = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Give parked events up for good. Without --yes it only says which (a dry run)."""
    if bool(positions) is (key is not None):
        raise typer.BadParameter("say which events: POSITION…, or --key KEY.")

    async def work(client: Client) -> None:
        subscription = _subscription(client, where)
        _check_words(positions or ())
        if not yes:
            found = await _all_parked(subscription, positions, key)
            _say_others(where, positions or (), found)
            if as_json:
                print_json({"would_discard": found})
            else:
                _say_dry_run("discard", found)
            return
        _want_reason(reason)
        gone = await subscription.discard(positions or None, key=key, reason=reason, by=by or _user())
        _say_others(where, positions or (), gone)
        if as_json:
            print_json({"discarded": gone})
        else:
            say(f"{many(len(gone), 'event')} discarded.")

    with_client(work, store=store, debug=debug)


@dead.command(epilog=epilog("dead resume"))
def resume(
    where: Where,
    reason: WhyOption = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a handler go on that was stopped or is suspended."""

    async def work(client: Client) -> None:
        was_so = await _subscription(client, where).resume(reason=reason)
        if as_json:
            print_json({"resumed": was_so})
        else:
            say(f"{where} goes on." if was_so else f"{where} was neither stopped nor suspended.")

    with_client(work, store=store, debug=debug)


@dead.command(epilog=epilog("dead stop"))
def stop(
    where: Where,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a handler begin nothing more until it is resumed.

    It holds for all workers, and lasts over restarts.
    """

    async def work(client: Client) -> None:
        _want_reason(reason)
        was_so = await _subscription(client, where).stop(reason=reason)
        if as_json:
            print_json({"stopped": was_so})
        else:
            say(f"{where} begins nothing more." if was_so else f"{where} was stopped already.")

    with_client(work, store=store, debug=debug)


# -- what they share -------------------------------------------------------------------------------


def _check_words(positions: Iterable[str] = (), reason: str | None = None) -> None:
    """Raises BadInput for a position or a reason that cannot be."""
    try:
        kind_of(reason)
        for position in positions:
            place_at(position)
    except PerdureError as error:
        raise BadInput(error.what, hint=error.hint) from error


def _want_reason(reason: str) -> None:
    if not reason.strip():
        raise BadInput("Nobody would know later why this was done: say why.", hint="Give --reason.")


def _subscription(client: Client, where: str) -> Subscription:
    stream, _, handler = where.rpartition("/")
    if not stream or not handler:
        raise BadInput(f"{where!r} is no handler.", hint="Write STREAM/HANDLER, as `perdure dead list` does.")
    return client.subscription(handler, stream)


def _say_others(where: str, named: Collection[str], found: Collection[str]) -> None:
    """Say which of those that were named are not parked. Raises NotParked if that is all of them."""
    others = [position for position in named if position not in found]
    if others and not found:
        raise NotParked(
            f"Nothing at {', '.join(others)} is parked by {where}: it is done, discarded or on its way.",
            hint=f"`perdure dead list {where}` says what is.",
        )
    if others:
        say(f"Not parked: {', '.join(others)}.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return ""


async def _all_parked(subscription: Subscription, positions: list[str] | None, key: str | None) -> list[str]:
    found: list[str] = []
    after = None
    while page := await subscription.parked(key=key, after=after, limit=1_000):
        found += [one.position for one in page]
        after = page[-1].position
    return found if positions is None else [one for one in found if one in positions]


def _say_dry_run(verb: str, positions: list[str]) -> None:
    if not positions:
        say(f"There is nothing to {verb}.")
        return
    for position in positions[:_SHOWN]:
        print(position)
    if len(positions) > _SHOWN:
        say(f"… and {len(positions) - _SHOWN:,} more")
    participle = "redriven" if verb == "redrive" else "discarded"
    say(f"A dry run: {many(len(positions), 'event')} would be {participle}. --yes does it.")


async def _list_handlers(client: Client, *, as_json: bool) -> None:
    found = [(f"{one.stream}/{one.name}", await one.status()) for one in await client.subscriptions()]
    if as_json:
        for name, status in found:
            print_json({"handler": name, "status": status})
    elif found:
        _print_handlers(found, client.now_ms())
    else:
        say("No handler has subscribed to a stream.")


def _print_handlers(found: list[tuple[str, SubscriptionStatus]], now_ms: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("HANDLER", "STATUS", "PARKED", "WAITING", "REASON"):
        table.add_column(
            title, justify="right" if title in ("PARKED", "WAITING") else "left", overflow="fold"
        )
    colours = {"active": "green", "suspended": "bold yellow", "stopped": "bold red"}
    for name, status in found:
        since = "" if status.status == "active" or status.since is None else age(now_ms - to_ms(status.since))
        table.add_row(
            Text(name), Text(f"{status.status} {since}".strip(), colours[status.status]),
            f"{sum(status.parked.values()):,}", f"{status.due:,}", Text(status.reason),
        )  # fmt: skip
    console().print(table)


def _print_parked(found: list[ParkedEvent], now_ms: int) -> None:
    from rich.table import Table
    from rich.text import Text

    ages = [age(now_ms - to_ms(one.parked_at)) for one in found]
    rows = [
        (one.position, one.key, one.reason, since, str(one.attempts), str(one.redrives))
        for one, since in zip(found, ages, strict=True)
    ]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    taken = 0
    for number, title in enumerate(("POSITION", "KEY", "WHY", "AGE", "TRIES", "REDRIVEN")):
        taken += add_firm_column(table, title, [row[number] for row in rows], right=number >= 3)
    add_error_column(table, taken)
    for row, one in zip(rows, found, strict=True):
        table.add_row(*map(Text, row), Text(one.error))
    console().print(table)


def _print_details(details: ParkedDetails) -> None:
    from rich.text import Text

    parked, out = details.parked, console()
    title = Text(f"{details.type} ", "bold")
    title.append(f"{details.id}  {parked.reason}", "default not bold")
    out.print(title)
    rows = [
        ("position", parked.position),
        ("key", parked.key),
        ("source", details.source),
        ("happened", clock_time(details.time)),
        ("appended", clock_time(details.appended_at)),
        ("parked", f"{clock_time(parked.parked_at)}, after {many(parked.attempts, 'attempt')}"),
        ("redriven", many(parked.redrives, "time")),
        ("error", parked.error),
        ("damage", details.damage),
        ("data", shorten(details.payload, 10_000)),
        ("was", shorten(details.original, 10_000) if details.original != details.payload else ""),
    ]
    for label, text in rows:
        if text:
            out.print(Text(f"  {label:<10}{text}"), overflow="fold")
    for note in details.notes:
        who = f" by {note.by}" if note.by else ""
        why = f": {note.reason}" if note.reason else ""
        out.print(Text(f"  {note.deed} {clock_time(note.at)}{who}{why}"))
    if details.traceback:
        out.print()
        for line in details.traceback:
            out.print(Text(f"  {line}", "dim"))
