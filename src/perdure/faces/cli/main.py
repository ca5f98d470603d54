"""`app`: the `perdure` command, put together from one file per noun."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import (
    asyncapi,
    checking,
    dead,
    debugging,
    demo,
    deploying,
    doctor,
    events,
    exporting,
    lagging,
    listing,
    moving,
    running,
    schemas,
    sending,
    showing,
    starting,
    unsubscribing,
    working,
)
from .endings import MEANINGS
from .examples import epilog

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

app = typer.Typer(
    name="perdure",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=EPILOG,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"perdure {sys.modules['perdure'].__version__}")
        raise typer.Exit


@app.callback()
def perdure(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Durable workflows and event streams, in one SQLite file or PostgreSQL."""


for command in (
    running.run,
    working.worker,
    starting.start,
    listing.list_runs,
    showing.show,
    showing.state,
    sending.send,
    sending.update,
    sending.cancel,
    sending.terminate,
    sending.resume,
    exporting.export,
    debugging.debug,
    deploying.deploy_check,
    checking.check,
    asyncapi.asyncapi,
    events.events,
    lagging.lag,
    lagging.seek,
    unsubscribing.unsubscribe,
    doctor.doctor,
    moving.move,
    demo.demo,
):
    called = command.__name__.removesuffix("_runs").replace("_", "-")
    app.command(called, epilog=epilog(called))(command)
app.add_typer(schemas.schema)
app.add_typer(dead.dead, name="dead")
