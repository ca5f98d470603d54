"""`schema check`, `diff`, `history` and `samples`: does new code go with what is stored?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .endings import BadInput, ExitCode, be_interruptible, conclude
from .examples import epilog
from .loading import load_module
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption
from .output import clock_time, many, print_json, say

if TYPE_CHECKING:
    from ...contracts.declared import Declared
    from ...contracts.findings import Finding

schema = typer.Typer(
    name="schema",
    no_args_is_help=True,
    help="Compare what code declares with what is stored.",
    rich_markup_mode=None,
)

Modules = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE", help="Modules or files that define streams and workflows, as for `worker`."
    ),
]
_READERS = {
    "backward": "the new code cannot read what is stored",
    "forward": "code that is still deployed cannot read what the new code writes",
}


@schema.command(epilog=epilog("schema check"))
def check(
    modules: Modules,
    store: StoreOption = "",
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="DIR", help="Check against a folder of samples, too, or instead."),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Read all that is stored by new code, before it is deployed.

    With --store all events of the modules' streams, and what open runs hold; with --against the
    files of a folder that `schema samples` wrote. Nothing is written, and no workflow or step runs.
    Exit code 0: all goes together. 1: something does not. Any other: it could not be checked.
    """

    async def work() -> ExitCode:
        from ...contracts.corpus import check_samples
        from ...contracts.findings import Findings
        from ...contracts.live import check_live
        from ...journals.reading import open_to_look

        if not store and against is None:
            raise BadInput(
                "There is nothing to check against.", hint="Give --store URL, --against DIR, or both."
            )
        declared, findings = _declared(modules), Findings()
        be_interruptible()
        looked_at: list[str] = []
        if store:
            with open_to_look(store) as opened:
                live = check_live(opened, declared, findings)
            events = sum(count for name, count in live.counts.items() if name.what == "event")
            looked_at.append(f"{many(events, 'event')} and {many(live.runs, 'open run')} of {opened.url}")
        if against is not None:
            if not against.is_dir():
                raise BadInput(
                    f"There is no folder '{against}'.", hint="`perdure schema samples` writes one."
                )
            looked_at.append(f"{many(check_samples(against, declared, findings), 'file')} of '{against}'")
        found = findings.all()
        if as_json:
            print_json({"checked": looked_at, "findings": found})
        else:
            for line in _lines(found):
                print(line)
            say(f"{many(len(found), 'finding')} in {', '.join(looked_at)}.")
        return ExitCode.FAILED if found else ExitCode.OK

    conclude(work(), debug=debug)


@schema.command(epilog=epilog("schema diff"))
def diff(
    modules: Modules,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what code changes of types of events, and whom it breaks."""

    async def work() -> None:
        from ...journals.reading import open_to_look

        declared = _declared(modules)
        with open_to_look(store) as opened:
            rows = opened.streams.schemas()
        found = list(_changes(declared, rows))
        if as_json:
            print_json(found)
            return
        for one in found:
            sides = [_READERS[side] for side in one["breaks"]]
            print(f"{one['stream']}/{one['type']} {one['from']} → {one['to']}: {one['path']}: {one['rule']}")
            print(f"  {one['what']}; {'; '.join(sides) if sides else 'breaks nobody'}")
        if not found:
            say("The code changes nothing.")

    conclude(work(), debug=debug)


@schema.command(epilog=epilog("schema history"))
def history(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Only of this stream.")] = "",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the versions that types of events have had."""

    async def work() -> None:
        from ...journals.reading import open_to_look

        with open_to_look(store) as opened:
            rows = opened.streams.schemas(stream)
        if as_json:
            print_json([{**row._asdict(), "schema": row.schema} for row in rows])
            return
        for row in rows:
            came = clock_time(datetime.fromtimestamp(row.at_ms / 1000, tz=UTC))
            print(f"{row.stream}/{row.type} {row.version}  {row.fingerprint}  {came}")
        if not rows:
            say(f"No events have been appended{f' to {stream!r}' if stream else ''}.")

    conclude(work(), debug=debug)


@schema.command(epilog=epilog("schema samples"))
def samples(
    modules: Modules,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder, which goes with the code.")],
    store: StoreOption = "",
    debug: DebugOption = False,
) -> None:
    """Write a folder of schemas, for `schema check` in CI.

    With --store also a sample of each value, the first one that is stored: look at what it tells
    before you commit it. Files of older versions stay until you delete them.
    """

    async def work() -> None:
        from ...contracts.corpus import write_samples
        from ...contracts.findings import Findings
        from ...contracts.live import check_live
        from ...journals.reading import open_to_look

        declared, live = _declared(modules), None
        be_interruptible()
        if store:
            with open_to_look(store) as opened:
                live = check_live(opened, declared, Findings())
        written = write_samples(to, declared, live)
        for path in written:
            print(path)
        say(f"{many(len(written), 'file')} written.")

    conclude(work(), debug=debug)


def _declared(modules: list[str]) -> Declared:
    from ...contracts.declared import declared_in

    declared = declared_in([load_module(place.partition(":")[0]) for place in modules])
    if not declared.streams and not declared.values:
        raise BadInput(
            f"{', '.join(modules)}: there is no stream, workflow or step here.",
            hint="Name the module that defines them.",
        )
    return declared


def _changes(declared: Declared, rows: list[Any]) -> Iterator[dict[str, Any]]:
    """From what the store has of the code's version, if that was changed, else from the latest other one."""
    from ...schemas.comparing import compare
    from ...schemas.making import read_schema

    for name in declared.events():
        kind = declared.streams[name.stream].versions.kinds[name.name]
        known = [row for row in rows if (row.stream, row.type) == (name.stream, name.name)]
        same = [row for row in known if row.version == name.version and row.fingerprint != kind.fingerprint]
        for row in same or [row for row in known if row.version != name.version][-1:]:
            for change in compare(read_schema(row.schema), kind.schema):
                yield {
                    "stream": name.stream, "type": name.name, "from": row.version, "to": name.version,
                    "path": change.path, "rule": change.rule, "what": change.what,
                    "breaks": sorted(change.breaks),
                }  # fmt: skip


def _lines(found: list[Finding]) -> Iterator[str]:
    for finding in found:
        yield f"{finding.where}: {finding.rule}{f' at {finding.path}' if finding.path else ''}"
        yield f"  {finding.what}"
        if finding.side:
            yield f"  {_READERS[finding.side]}"
        if finding.ids:
            more = finding.count - len(finding.ids)
            yield f"  in: {', '.join(finding.ids)}{f' and {more:,} more' if more else ''}"
        yield ""
