"""`deploy-check`: would the open runs of a store go on with this code?"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .endings import ExitCode, be_interruptible, conclude
from .loading import load_modules
from .options import DEFAULT_STORE, DebugOption, JsonOption, StoreOption
from .output import many, print_json, say

if TYPE_CHECKING:
    from ...journals.checking import Findings, Group

_PYTHON = ".".join(platform.python_version_tuple()[:2])
_ALL = 1 << 62


def deploy_check(
    modules: Annotated[
        list[str],
        typer.Argument(metavar="MODULE", help="Modules or files that define the workflows, as for `worker`."),
    ],
    all_ids: Annotated[bool, typer.Option("--all-ids", help="Name all runs, and not the first few.")] = False,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Replay every open run against new code, before a deploy.

    No step runs and nothing is written; a worker may run meanwhile, and a copy of the file
    will do. Exit code 0: all runs go on. 1: some would be parked, or fail. Any other: it
    could not be checked.
    """

    async def work() -> ExitCode:
        from ...journals.checking import IDS_KEPT, Checker
        from ...journals.reading import open_to_look

        definitions = load_modules(modules)
        checker = Checker(definitions, ids_kept=_ALL if all_ids else IDS_KEPT)
        be_interruptible()
        began = time.perf_counter()
        with open_to_look(store) as looked_at:
            findings = checker.check(looked_at)
        took_s = time.perf_counter() - began
        if as_json:
            print_json(_as_json(findings))
        else:
            for line in _lines(findings, took_s):
                print(line)
            for line in _remarks(findings):
                say(line)
        return ExitCode.FAILED if findings.groups else ExitCode.OK

    conclude(work(), debug=debug)


def _as_json(findings: Findings) -> dict[str, Any]:
    groups = findings.ordered()
    return {
        "runs": findings.runs,
        "compatible": findings.compatible,
        "needs_patched": sum(group.count for group in groups if group.parting.is_patchable),
        "diverges": sum(group.count for group in groups if not group.parting.is_patchable),
        "pythons": findings.pythons,
        "groups": [
            {"verdict": _verdict(group), "runs": group.count, "ids": group.ids, "parting": group.parting}
            for group in groups
        ],
    }


def _verdict(group: Group) -> str:
    return "needs patched" if group.parting.is_patchable else "diverges"


def _lines(findings: Findings, took_s: float) -> Iterator[str]:
    patched = sum(group.count for group in findings.groups.values() if group.parting.is_patchable)
    diverging = findings.runs - findings.compatible - patched
    counts = f"{findings.compatible:,} compatible, {patched:,} need patched, {diverging:,} diverge"
    yield f"Replayed {many(findings.runs, 'open run')} in {took_s:.1f} s: {counts}."
    for group in findings.ordered():
        parting = group.parting
        yield ""
        yield f"{parting.workflow}: {many(group.count, 'run')} {_which(group)}"
        yield f"  {parting.what}"
        if parting.line:
            yield f"  at {parting.line}"
        for line in parting.code.splitlines():
            yield f"    | {line}"
        if parting.proposal:
            yield "  try:" if parting.is_patchable else "  what helps:"
            for line in parting.proposal.splitlines():
                yield f"    {line}"
        more = group.count - len(group.ids)
        yield f"  runs: {', '.join(group.ids)}{f' and {more:,} more (--all-ids)' if more else ''}"


def _which(group: Group) -> str:
    if group.parting.is_patchable:
        return "need patched()" if group.count > 1 else "needs patched()"
    return (
        "diverge, and patched() does not help" if group.count > 1 else "diverges, and patched() does not help"
    )


def _remarks(findings: Findings) -> Iterator[str]:
    if not findings.runs:
        yield "There are no open runs."
    if findings.mended:
        yield f"{many(findings.mended, 'parked run')} would go on with this code: it fits them again."
    if findings.ending:
        yield f"{many(findings.ending, 'run')} would end at once: nothing is left to wait for."
    others = {python: count for python, count in findings.pythons.items() if python not in ("", _PYTHON)}
    for python, count in others.items():
        yield (
            f"{many(count, 'run')} began on Python {python}, and this is {_PYTHON}: asyncio's order of "
            "wake-ups may differ. Check with the Python that the worker has."
        )
    if findings.groups:
        yield "A worker with this code would park those runs as it comes to them, and serve the others."
