"""`show`: a run's timeline, to be read by people. `state`: what it has published."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ...client import Client
from ...views import Entry, RunStatus, Timeline, WorkerView
from .endings import BadInput, with_client
from .options import DEFAULT_STORE, DebugOption, JsonOption, RunId, StoreOption
from .output import COLOURS, age, between_ms, clock_time, console, duration, many, print_json, shorten, to_ms

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_WIDEST = 160
"""Longer lines are hard to read, and where nobody looks the width has no end."""
_LABEL = 10
_LEFT = 24
"""What stands left of an entry's text: its time and its kind."""


def show(
    id: RunId,
    generation: Annotated[
        int | None, typer.Option("--generation", "-g", min=1, help="An earlier generation of the id.")
    ] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="Only so many entries, the last.")] = 200,
    all: Annotated[bool, typer.Option("--all", help="All entries.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what happened to a run, and what it waits for."""

    async def work(client: Client) -> None:
        timeline = await client.timeline(id, generation=generation, last=None if all else last)
        workers = await client.workers()
        if as_json:
            print_json(timeline)
        else:
            _print(timeline, client.now_ms(), workers)

    with_client(work, store=store, debug=debug)


def state(
    id: RunId,
    name: Annotated[str | None, typer.Argument(metavar="[STATE]", help="The state's name; else all.")] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write what a run has published: one value, or all."""

    async def work(client: Client) -> None:
        states = (await client.timeline(id, last=1)).states
        if as_json:
            print_json([each for each in states if name in (None, each.name)])
        elif name is None:
            print_json({each.name: each.value for each in states})
        else:
            found = [each.value for each in states if each.name == name]
            if not found:
                names = ", ".join(each.name for each in states) or "nothing"
                raise BadInput(f"Run {id!r} has not published {name!r}.", hint=f"It has published {names}.")
            print_json(found[0])

    with_client(work, store=store, debug=debug)


# -- the page --------------------------------------------------------------------------------------


def _print(timeline: Timeline, now_ms: int, workers: list[WorkerView]) -> None:
    width = min(console().width, _WIDEST)
    out = console()
    out.print(_title(timeline), width=width)
    out.print(_fields(list(_header(timeline, now_ms, width))), width=width)
    out.print()
    if timeline.left_out:
        out.print(f"  Earlier entries left out: {timeline.left_out:,}. --all shows them.\n")
    out.print(_journal(timeline, width), width=width)
    for title, lines in (
        ("waits for", list(_waits(timeline, now_ms, width, workers))),
        ("children", list(_children(timeline))),
        ("state", list(_states(timeline, width))),
    ):
        if lines:
            out.print()
            titles = (title, *[""] * (len(lines) - 1))
            out.print(_fields(list(zip(titles, lines, strict=True))), width=width)
    if timeline.traceback:
        out.print()
        for line in timeline.traceback:
            out.print(_text(f"  {line}", "dim"), width=width)
    if timeline.run.status is RunStatus.PARKED:
        out.print()
        out.print(f"When that is put right: perdure resume {shlex.quote(timeline.run.id)}", width=width)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style)


def _title(timeline: Timeline) -> Text:
    run = timeline.run
    title = _text(run.id, "bold")
    title.append(f"  {run.workflow}  ", "default not bold")
    title.append(run.status.value, COLOURS[run.status])
    return title


def _fields(rows: list[tuple[str, RenderableType]]) -> RenderableType:
    """Labels on the left, what they name on the right."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=_LABEL, style="dim")
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(f"  {label}", _text(value) if isinstance(value, str) else value)
    return table


def _header(timeline: Timeline, now_ms: int, width: int) -> Iterator[tuple[str, RenderableType]]:
    run = timeline.run
    room = width - _LABEL - 6
    if run.generation > 1:
        yield "generation", str(run.generation)
    yield "created", f"{clock_time(run.created_at)}, {age(now_ms - to_ms(run.created_at))} ago"
    if run.ended_at is not None:
        yield (
            "ended",
            f"{clock_time(run.ended_at)}, after {duration(between_ms(run.created_at, run.ended_at))}",
        )
    if timeline.deadline is not None and run.ended_at is None:
        yield "deadline", clock_time(timeline.deadline)
    if timeline.parent is not None:
        yield "parent", timeline.parent
    if run.tags:
        yield "tags", "  ".join(f"{key}={value}" for key, value in run.tags.items())
    if timeline.input not in (b"", b"{}"):
        yield "input", shorten(timeline.input, room)
    if timeline.result is not None:
        yield "result", shorten(timeline.result, room)
    if run.error is not None:
        yield "error", _text(run.error, COLOURS[run.status])


def _journal(timeline: Timeline, width: int) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True, min_width=11, style="dim")
    table.add_column(no_wrap=True, min_width=9)
    table.add_column(overflow="fold")
    run = timeline.run
    if not timeline.left_out:
        table.add_row("  +0 ms", "start", "")
    for entry in timeline.entries:
        word, style = _KINDS.get(entry.kind, (entry.kind, ""))
        table.add_row(
            f"  +{duration(entry.offset_ms)}", _text(word, style), _entry_text(entry, width - _LEFT)
        )
    if run.status is RunStatus.PARKED:
        table.add_row("", _text("parked", COLOURS[run.status]), _text(run.error or ""))
    if run.ended_at is not None:
        took = duration(between_ms(run.created_at, run.ended_at))
        table.add_row(f"  +{took}", "end", _text(run.status.value, COLOURS[run.status]))
    return table


_KINDS: dict[str, tuple[str, str]] = {
    "step": ("step", "green"),
    "step failed": ("step", "red"),
    "attempt failed": ("attempt", "yellow"),
    "child started": ("child", "green"),
    "child failed": ("child", "red"),
    "signal": ("signal", "cyan"),
    "update": ("update", "cyan"),
    "cancel": ("cancel", "magenta"),
}


def _entry_text(entry: Entry, room: int) -> Text:
    match entry.kind:
        case "step failed":
            return _text(f"{entry.name} failed: {entry.error}", "red")
        case "child failed":
            return _text(f"{entry.name} failed: {entry.error}{_child(entry)}", "red")
        case "attempt failed":
            return _text(f"{entry.name}, attempt {entry.attempt} failed: {entry.error}")
        case "child started":
            return _text(f"{entry.name} started{_child(entry)}")
        case "heartbeat":
            head, tail = f"{entry.name}, attempt {entry.attempt}", ""
        case _:
            head, tail = entry.name, _took(entry)
            if entry.kind == "child":
                tail = _child(entry) + tail
    text = _text(head)
    if entry.value is not None:
        arrow = " → " if entry.kind in ("step", "child") else "  "
        text.append(arrow, "dim")
        text.append(shorten(entry.value, max(20, room - len(head) - len(arrow) - len(tail))))
    text.append(tail, "dim")
    return text


def _child(entry: Entry) -> str:
    return f"  ({entry.child})" if entry.child else ""


def _took(entry: Entry) -> str:
    parts: list[str] = []
    if entry.attempt is not None:
        parts.append(f"attempt {entry.attempt}")
    if entry.took_ms is not None:
        parts.append(duration(entry.took_ms))
    return f"  ({', '.join(parts)})" if parts else ""


# -- what it waits for -----------------------------------------------------------------------------


def _waits(timeline: Timeline, now_ms: int, width: int, workers: list[WorkerView]) -> Iterator[str]:
    has_worker = bool(workers)
    if timeline.run.status is RunStatus.PARKED:
        yield "a person"
        return
    if timeline.run.status is not RunStatus.RUNNING:
        return
    yield from _steps_under_way(timeline, now_ms, width, {tag for each in workers for tag in each.tags})
    for child in timeline.children:
        if child.status.is_open:
            yield f"child {child.id} ({child.status.value})"
    if timeline.wake_at is not None:
        wait_ms = to_ms(timeline.wake_at) - now_ms
        when = f"in {duration(wait_ms)}" if wait_ms > 0 else "due"
        yield f"time, until {clock_time(timeline.wake_at)} ({when}), or a message"
    elif timeline.is_active and not timeline.under_way:
        yield "a step, or other work of its worker's" if has_worker else "a worker: it has work to do"
    elif not timeline.is_active and not timeline.under_way:
        yield "a message: a signal, an update, the end of a child"
    for message in timeline.messages:
        name = f" {message.name}" if message.name else ""
        ago = age(now_ms - to_ms(message.at))
        yield f"its worker, to take a message: {message.kind}{name}, sent {ago} ago"
    if timeline.crashes:
        yield f"(its worker died {many(timeline.crashes, 'time')} since it last got on)"
    if not has_worker and timeline.run.status is RunStatus.RUNNING:
        yield "(no worker is running on this store)"


def _steps_under_way(timeline: Timeline, now_ms: int, width: int, served: set[str]) -> Iterator[str]:
    for step in timeline.under_way:
        line = f"step {step.name}, attempt {step.attempt}"
        if step.worker is not None:
            line += f", at worker {step.worker}"
        elif step.tag is not None:
            line += f", which waits for a worker with tag {step.tag}"
            line += "" if step.tag in served else " (there is none)"
        if step.heartbeat_at is not None:
            line += f", heartbeat {age(now_ms - to_ms(step.heartbeat_at))} ago"
            if step.heartbeat is not None:
                line += f": {shorten(step.heartbeat, max(20, width - 16 - len(line)))}"
        yield line


def _states(timeline: Timeline, width: int) -> Iterator[str]:
    for each in timeline.states:
        yield f"{each.name} = {shorten(each.value, max(20, width - 16 - len(each.name)))}"


def _children(timeline: Timeline) -> Iterator[str]:
    for child in timeline.children:
        error = f": {child.error}" if child.error else ""
        yield f"{child.id}  {child.workflow}  {child.status.value}{error}"
