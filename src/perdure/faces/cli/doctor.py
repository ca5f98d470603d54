"""`doctor`: is the store well, who works on it, and what waits for a person."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from ...client import Client
from ...errors import StoreUnavailable
from ...views import Health
from .endings import ExitCode, with_client
from .loading import load_modules
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption
from .output import clock_time, many, print_json

if TYPE_CHECKING:
    from ...streaming.parked import SubscriptionStatus


def doctor(
    module: Annotated[
        list[str] | None,
        typer.Option("--module", "-m", help="A module: which open runs have their workflow in none?"),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check the store, and say what is parked and why.

    Versions, integrity (it reads the whole file), the worker, runs by status, and which
    handlers of events wait for a person.
    """

    async def work(client: Client) -> ExitCode:
        health = await client.health(None if module is None else load_modules(module).keys())
        handlers = await _handlers(client)
        if as_json:
            print_json({"store": client.url, **_versions(), "health": health, "handlers": handlers})
        else:
            for line in _lines(client.url, health, asked_modules=module is not None):
                print(line)
            for line in _handler_lines(handlers):
                print(line)
        return ExitCode.STORE if health.wrongs else ExitCode.OK

    with_client(work, store=store, debug=debug)


async def _handlers(client: Client) -> dict[str, SubscriptionStatus]:
    """How the handlers stand that wait for a person: with parked events, stopped or suspended."""
    try:
        subscriptions = await client.subscriptions()
    except StoreUnavailable:  # a Temporal cluster, which keeps none
        return {}
    found = {f"{one.stream}/{one.name}": await one.status() for one in subscriptions}
    return {name: status for name, status in found.items() if status.status != "active" or status.parked}


def _handler_lines(handlers: Mapping[str, SubscriptionStatus]) -> Iterator[str]:
    if handlers:
        yield ""
        yield "Handlers of events that wait for a person:"
    for name, status in handlers.items():
        stands = [] if status.status == "active" else [f"{status.status}: {status.reason}"]
        parked = sum(status.parked.values())
        if parked:
            stands.append(f"{many(parked, 'event')} parked")
        yield f"  {name}: {', '.join(stands)}"
        if status.status != "active":
            yield f"    perdure dead resume {shlex.quote(name)}"
        if parked:
            yield f"    perdure dead list {shlex.quote(name)}"


def _versions() -> dict[str, str]:
    return {"perdure": sys.modules["perdure"].__version__, "python": platform.python_version()}


def _lines(url: str, health: Health, *, asked_modules: bool) -> Iterator[str]:
    for name, value in {**_versions(), "store": url, **health.versions}.items():
        yield f"{name:<14}{value}"
    wrongs = f"{many(len(health.wrongs), 'thing')} wrong" if health.wrongs else "all is well"
    yield f"{'integrity':<14}{wrongs}"
    for wrong in health.wrongs:
        yield f"  {wrong}"
    if not health.workers:
        yield f"{'worker':<14}none is running"
    for worker in health.workers:
        since, until = clock_time(worker.since), clock_time(worker.until)
        tags = f", tags {', '.join(worker.tags)}" if worker.tags else ""
        yield f"{'worker':<14}{worker.name}, since {since}, lease until {until}{tags}"
    counts = ", ".join(f"{count:,} {word}" for word, count in health.counts.items())
    yield f"{'runs':<14}{counts or 'none'}"
    if health.parked:
        yield ""
        yield "Parked, and waiting for a person:"
    for run in health.parked:
        yield f"  {run.id} ({run.workflow}): {run.error or 'no reason is recorded'}"
        yield f"    perdure resume {shlex.quote(run.id)}"
    if health.unserved:
        yield ""
        yield "Steps that wait for a worker with a tag that none has:"
    for tag, count in health.unserved.items():
        yield f"  {tag}: {many(count, 'step')}"
        yield f"    perdure worker MODULE --tag {shlex.quote(tag)}"
    if health.undefined:
        yield ""
        yield "Open runs whose workflow none of the modules defines:"
    for name, count in health.undefined.items():
        yield f"  {name}: {many(count, 'run')}"
    if asked_modules and not health.undefined:
        yield ""
        yield "The modules define the workflows of all open runs."
