"""`check`: does workflow code keep to what a replay can repeat? Reads the code, and runs none of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .endings import ExitCode, complain
from .options import DebugOption, JsonOption
from .output import console, many, print_json, say

if TYPE_CHECKING:
    from ...check.search import Report

_STYLES = {"place": "bold", "why": "default", "fix": "green", "way": "dim"}


def check(
    places: Annotated[
        list[str], typer.Argument(metavar="PATH|MODULE", help="Files, folders, or names of modules.")
    ],
    as_sarif: Annotated[
        bool, typer.Option("--sarif", help="Write SARIF 2.1.0 to stdout, for code hosts and editors.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check workflow code for what a replay would not repeat.

    Clocks, random numbers, I/O, threads, the order of sets, shared state, calls
    that are not awaited: also in what workflows call in other files. No code is
    run. `# perdure: allow[rule] reason` on a line allows it there.
    """
    from ...check import report, search
    from ...check.project import Unreadable

    if as_json and as_sarif:
        raise typer.BadParameter("--json and --sarif exclude each other.")
    try:
        found = search.check(places)
    except Unreadable as error:
        complain(error, debug=debug)
        raise typer.Exit(ExitCode.USAGE) from None
    if as_sarif:
        print(report.as_sarif(found, version=sys.modules["perdure"].__version__))
    elif as_json:
        print_json(report.as_json(found))
    else:
        _print(found)
    _say_end(found)
    raise typer.Exit(_code(found))


def _print(found: Report) -> None:
    from rich.text import Text

    from ...check.report import lines

    for part, text in lines(found):
        console().print(Text(text, _STYLES[part]), soft_wrap=True)


def _say_end(found: Report) -> None:
    for path, reason in found.unreadable:
        say(f"{path} cannot be read: {reason}.")
    defined = f"{many(found.workflows, 'workflow')} and {many(found.steps, 'step')}"
    say(f"{many(len(found.findings), 'finding')} in {defined} of {many(found.files, 'file')}.")
    if not found.workflows and not found.unreadable:
        say("There is no workflow here: was the right place named?")


def _code(found: Report) -> ExitCode:
    if found.unreadable:
        return ExitCode.USAGE
    return ExitCode.FAILED if found.findings else ExitCode.OK
