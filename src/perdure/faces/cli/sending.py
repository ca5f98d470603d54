"""`send`, `update`, `cancel`, `terminate`, `resume`: what is said to runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...blocks.signal import Signal
from ...blocks.update import Update
from ...client import Client
from ...views import RunStatus
from .endings import Refused, with_client
from .options import DEFAULT_STORE, DebugOption, JsonOption, RunId, StoreOption, read_json
from .output import many, print_json, say

Value = Annotated[
    str, typer.Argument(metavar="JSON", help="The value: '\"ann\"', 17, '{…}', @FILE, - (stdin).")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept with the run.")]


def send(
    id: RunId,
    signal: Annotated[str, typer.Argument(metavar="SIGNAL", help="The signal's name.")],
    value: Value = "null",
    signal_id: Annotated[
        str, typer.Option("--signal-id", metavar="ID", help="Sent again with the same id, it is taken once.")
    ] = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send a signal to a run."""

    async def work(client: Client) -> None:
        await client.send(id, Signal[Any](signal), read_json(value), signal_id=signal_id)
        await _tell_sent(client, id, f"Signal {signal} is on disk", as_json=as_json)

    with_client(work, store=store, debug=debug)


def update(
    id: RunId,
    name: Annotated[str, typer.Argument(metavar="UPDATE", help="The update's name.")],
    value: Value = "null",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send an update to a run, and write its answer."""

    async def work(client: Client) -> None:
        if not await client.workers():
            say("No worker is running on this store: this waits until one answers. Ctrl-C stops waiting.")
        answer = await client.update(id, Update[Any, Any](name), read_json(value))
        print_json({"id": id, "answer": answer} if as_json else answer)

    with_client(work, store=store, debug=debug)


def cancel(
    id: RunId,
    reason: ReasonOption = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask a run to stop: it may clean up, and then ends."""

    async def work(client: Client) -> None:
        await _refuse_ended(client, id, "cancelled")
        await client.cancel(id, reason)
        await _tell_sent(client, id, "The cancel is on disk", as_json=as_json)

    with_client(work, store=store, debug=debug)


def terminate(
    id: RunId,
    reason: ReasonOption = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """End a run at once, with no clean-up. Its children are cancelled."""

    async def work(client: Client) -> None:
        await _refuse_ended(client, id, "terminated")
        await client.terminate(id, reason)
        await _tell_sent(client, id, "The end is on disk", as_json=as_json)

    with_client(work, store=store, debug=debug)


def resume(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The run's id.")] = None,
    all: Annotated[bool, typer.Option("--all", help="All runs that are parked.")] = False,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", help="With --all: only this one's.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Go on with a parked run, or with all.

    A run is replayed from its journal, and tries again what failed.
    """
    if (id is None) != all:
        raise typer.BadParameter("give a run's id, or --all.")

    async def work(client: Client) -> None:
        if id is None:
            count = await _resume_all(client, workflow)
            await _tell_sent(client, None, f"{many(count, 'resume')} on disk", as_json=as_json, count=count)
            return
        if (await client.info(id)).status is RunStatus.RUNNING:
            raise Refused(f"Run {id!r} is not parked: it is running.")
        await client.resume(id)
        await _tell_sent(client, id, "The resume is on disk", as_json=as_json)

    with_client(work, store=store, debug=debug)


async def _resume_all(client: Client, workflow: str | None) -> int:
    count = 0
    before: int | None = None
    while True:
        page = await client.list(status=RunStatus.PARKED, workflow=workflow, before=before)
        for run in page.runs:
            await client.resume(run.id)
        count += len(page.runs)
        before = page.next
        if before is None:
            return count


async def _refuse_ended(client: Client, id: str, participle: str) -> None:
    status = (await client.info(id)).status
    if not status.is_open:
        raise Refused(f"Run {id!r} has ended ({status.value}), and cannot be {participle}.")


async def _tell_sent(
    client: Client, id: str | None, what: str, *, as_json: bool, count: int | None = None
) -> None:
    workers = await client.workers()
    if as_json:
        sent: dict[str, object] = {"id": id} if count is None else {"resumed": count}
        print_json({**sent, "workers": [worker.name for worker in workers]})
    if not workers:
        say(f"{what}. No worker is running on this store; it takes effect when one starts.")
    elif not as_json:
        say(f"{what}.")
