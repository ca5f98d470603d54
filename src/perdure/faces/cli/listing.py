"""`list`: the runs there are."""

from __future__ import annotations

from typing import Annotated

import typer

from ...client import Client
from ...views import RunPage, RunStatus, RunView
from .endings import BadInput, with_client
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption, read_tags, read_time
from .output import (
    COLOURS,
    add_error_column,
    add_firm_column,
    age,
    between_ms,
    console,
    duration,
    print_json,
    say,
    to_ms,
)  # fmt: skip


def list_runs(
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", help="Only runs of this workflow.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", help="Only with this status; may be given several times."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="KEY=VALUE", help="Only with this tag, and all others given."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only created since: 30min, 2h, 7d ago, or a date."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="TIME", help="Only created before: 30min, 2h, 7d ago, or a date."),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="Only ids that begin so.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
    page: Annotated[
        int | None,
        typer.Option("--page", metavar="NUMBER", help="The page after the one that named this number."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List runs, newest first. With --json, a line of JSON for each."""

    async def work(client: Client) -> None:
        now_ms = client.now_ms()
        found = await client.list(
            workflow=workflow,
            status=[read_status(word) for word in status or ()],
            tags=read_tags(tag),
            created_after=read_time(since, now_ms=now_ms),
            created_before=read_time(before, now_ms=now_ms),
            id_prefix=prefix,
            limit=limit,
            before=page,
        )
        if as_json:
            for run in found.runs:
                print_json(run)
        elif found.runs:
            _print_table(found, now_ms)
        else:
            say("No runs.")
        if found.next is not None:
            say(f"There may be more: --page {found.next}")

    with_client(work, store=store, debug=debug)


def read_status(word: str) -> RunStatus:
    """A status from the command line. Raises BadInput."""
    for status in RunStatus:
        if word.lower().replace("_", " ").replace("-", " ") == status.value:
            return status
    raise BadInput(
        f"{word!r} is no status.", hint=f"There are: {', '.join(status.value for status in RunStatus)}."
    )


def _print_table(page: RunPage, now_ms: int) -> None:
    from rich.table import Table
    from rich.text import Text

    ages = [age(now_ms - to_ms(run.created_at)) for run in page.runs]
    times = [_took(run) for run in page.runs]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    taken = 0
    for title, cells, is_time in (
        ("ID", [run.id for run in page.runs], False),
        ("WORKFLOW", [run.workflow for run in page.runs], False),
        ("STATUS", [run.status.value for run in page.runs], False),
        ("AGE", ages, True),
        ("TOOK", times, True),
    ):
        taken += add_firm_column(table, title, cells, right=is_time)
    if any(run.error for run in page.runs):
        add_error_column(table, taken)
    for run, since, took in zip(page.runs, ages, times, strict=True):
        status = Text(run.status.value, COLOURS[run.status])
        table.add_row(Text(run.id), Text(run.workflow), status, since, took, Text(run.error or ""))
    console().print(table)


def _took(run: RunView) -> str:
    return "" if run.ended_at is None else duration(between_ms(run.created_at, run.ended_at))
