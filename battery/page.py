"""The results: for the terminal, as JSON, and as docs/reliability.md, which is made of the JSON alone.

A result stands by itself: it says which row, which tier, how often, from which
seed on, with which versions. So rows can be run one by one, and the page keeps
of each the last result.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import apsw

from .row import Counted, Row, Tier, again

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "reliability.md"
DATA = DOCS / "reliability.json"


class ControlResult(TypedDict):
    planted: str
    caught: bool
    seen: str


class FailureResult(TypedDict):
    seed: int
    what: str
    again: str


class Result(TypedDict):
    """What came of one row, as it stands in reliability.json."""

    row: int
    name: str
    fault: str
    how: str
    holds: list[str]
    tier: Tier
    first_seed: int
    trials: int
    violations: int
    bound: float | None
    """Below this the chance of a violation lies, at 95 %; None when there were violations."""
    held: bool
    seconds: float
    failures: list[FailureResult]
    controls: list[ControlResult]
    notes: list[str]
    figures: dict[str, float]
    versions: dict[str, str]
    date: str


def versions() -> dict[str, str]:
    """What the results depend on."""
    return {
        "perdure": version("perdure"),
        "python": platform.python_version(),
        "sqlite_version": apsw.sqlite_lib_version(),
        "apsw": apsw.apsw_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "cores": str(os.cpu_count()),
    }


def result_of(row: Row, tier: Tier, counted: Counted, *, seed: int, seconds: float, whole: bool) -> Result:
    """Judge a row. `whole`: it was run as its tier wants it, so it must have had controls."""
    proved = all(control.caught for control in counted.controls) and (bool(counted.controls) or not whole)
    violations = len(counted.failures)
    return Result(
        row=row.number,
        name=row.name,
        fault=row.fault,
        how=row.how,
        holds=list(row.holds),
        tier=tier,
        first_seed=seed,
        trials=counted.trials,
        violations=violations,
        bound=3 / counted.trials if counted.trials and not violations else None,
        held=proved and not violations and counted.trials > 0,
        seconds=round(seconds, 1),
        failures=[
            FailureResult(seed=failure.seed, what=failure.what, again=again(row, tier, failure.seed))
            for failure in counted.failures
        ],
        controls=[
            ControlResult(planted=control.planted, caught=control.caught, seen=control.seen)
            for control in counted.controls
        ],
        notes=list(counted.notes),
        figures=dict(counted.figures),
        versions=versions(),
        date=datetime.now(UTC).date().isoformat(),
    )


def as_json(results: Sequence[Result]) -> str:
    return json.dumps({"rows": results}, indent=2, ensure_ascii=False) + "\n"


def merge(known: Iterable[Result], newer: Iterable[Result]) -> list[Result]:
    """All rows, each with its newest result, by number."""
    rows = {result["row"]: result for result in (*known, *newer)}
    return [rows[number] for number in sorted(rows)]


# -- for people ----------------------------------------------------------------------------------


def draw(result: Result) -> str:
    """One row for the terminal."""
    verdict = "held" if result["held"] else "NOT HELD"
    counts = f"{result['violations']} violations in {result['trials']:,} trials, {result['seconds']:.1f} s"
    lines = [f"{result['row']:>2}  {result['name']:<28} {verdict:<9} {counts}, {_bound(result)}"]
    for control in result["controls"]:
        caught = "caught" if control["caught"] else "NOT CAUGHT"
        lines.append(f"      control: {control['planted']}: {caught}: {control['seen']}")
    lines += [f"      {name}: {_number(value)}" for name, value in result["figures"].items()]
    lines += [f"      {note}" for note in result["notes"]]
    for failure in result["failures"]:
        lines += [f"      {failure['what']}", f"      again: {failure['again']}"]
    if not result["trials"] and not result["failures"]:
        lines.append("      nothing was tried, so nothing was shown")
    return "\n".join(lines)


def fill_page(page: str, results: Sequence[Result]) -> str:
    """The page with the table, and a section for each row, between their markers."""
    page = _fill(page, "table", _table(results))
    return _fill(page, "rows", "\n\n".join(_section(result) for result in results))


def _fill(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- battery:{name} -->", f"<!-- /battery:{name} -->"
    if begin not in page or end not in page:
        raise ValueError(f"the page has no place for {name!r}: put {begin} and {end} around it")
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return between.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", page)


def _table(results: Sequence[Result]) -> str:
    lines = [
        "| row | fault | tier | trials | violations | chance of one, at 95 % | controls caught |",
        "| --: | --- | --- | --: | --: | --- | --: |",
    ]
    for result in results:
        caught = sum(control["caught"] for control in result["controls"])
        lines.append(
            f"| {result['row']} | {result['name']} | {result['tier']} | {result['trials']:,} "
            f"| {result['violations']} | {_bound(result)} | {caught} of {len(result['controls'])} |"
        )
    return "\n".join(lines)


def _section(result: Result) -> str:
    about = result["versions"]
    facts = [f"Holds: {'; '.join(result['holds'])}."]
    for control in result["controls"]:
        caught = "Caught" if control["caught"] else "Not caught"
        facts.append(f"Control: {control['planted']}. {caught}: {control['seen']}.")
    figures = [f"{name}: {_number(value)}" for name, value in result["figures"].items()]
    if figures:
        facts.append(f"{', '.join(figures)}.")
    facts += result["notes"]
    facts.append(
        f"{result['date']}: {_seconds(result['seconds'])}, seeds from {result['first_seed']} on; Perdure "
        f"{about['perdure']}, Python {about['python']}, SQLite {about['sqlite_version']}, "
        f"{about['system']}, {about['cores']} cores."
    )
    head = f"### {result['row']}. {result['name'].capitalize()}"
    return "\n".join([head, "", f"{result['fault']} {result['how']}", "", *(f"- {fact}" for fact in facts)])


def _bound(result: Result) -> str:
    if result["bound"] is None or result["bound"] >= 1:
        return "too few to say"
    if result["bound"] >= 0.0001:
        return f"below {100 * result['bound']:.2g} %"
    return f"below 1 in {round(1 / result['bound'], -3):,.0f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 300 else f"{seconds / 60:.0f} min"
