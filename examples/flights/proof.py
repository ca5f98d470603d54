"""The proof that nothing was lost and nothing counted twice, without asking the engine.

Three witnesses must agree: the ledger that the steps wrote, the reports on disk,
and the source itself, which is read again here by the plainest code there is.
Of the rest of the example this file uses only the ledger's reader.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .ledger import Entry, Total, read_entries, read_totals


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that must hold, and what was found."""

    text: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Sums:
    """What the source says about some days."""

    flights: int = 0
    cancelled: int = 0
    late: int = 0
    minutes_lost: int = 0


def prove(
    *,
    source: Path,
    ledger: Path,
    reports: Path,
    runs: dict[str, str],
    steps: Sequence[str],
    others: set[tuple[str, str]],
) -> list[Claim]:
    """Check all claims.

    `runs` gives each day's run id, `steps` what each of them counts, and
    `others` the (run, step) of the effects that belong to no day.
    """
    expected = {(run, name) for run in runs.values() for name in steps} | others
    entries = [entry for entry in read_entries(ledger) if (entry.run, entry.step) in expected]
    by_day = read_source(source)
    chosen = {day: by_day[day] for day in runs if day in by_day}
    return [
        _every_effect_once(expected, entries),
        _repeats_are_known(entries),
        _counters_agree(read_entries(ledger), read_totals(ledger)),
        _ledger_agrees_with_source(entries, runs, chosen, steps),
        _reports_agree_with_source(reports, runs, chosen),
        _year_agrees_with_source(reports, list(chosen.values())),
    ]


def read_source(source: Path) -> dict[str, Sums]:
    """Each day's sums, from one plain pass over the table."""
    days: dict[str, Counter[str]] = {}
    with zipfile.ZipFile(source / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline="")):
            day = f"{row['year']}-{row['month']:0>2}-{row['day']:0>2}"
            sums = days.setdefault(day, Counter())
            sums["flights"] += 1
            if row["dep_time"] in ("", "NA"):
                sums["cancelled"] += 1
            else:
                delay = int(float(row["dep_delay"]))
                sums["late"] += delay >= 15
                sums["minutes_lost"] += max(delay, 0)
    return {day: Sums(**sums) for day, sums in days.items()}


def _every_effect_once(expected: set[tuple[str, str]], entries: Sequence[Entry]) -> Claim:
    # By run and step, not by key: an engine that gave the same step a second key would be found out.
    counted = Counter((entry.run, entry.step) for entry in entries if entry.counted)
    missing = expected - counted.keys()
    twice = [effect for effect, times in counted.items() if times > 1]
    return Claim(
        f"each of the {len(expected):,} effects was counted, and counted once",
        not missing and not twice,
        f"{len(counted):,} counted, {len(missing)} missing, {len(twice)} counted twice",
    )


def _repeats_are_known(entries: Sequence[Entry]) -> Claim:
    keys = {entry.key: (entry.run, entry.step) for entry in entries if entry.counted}
    repeats = [entry for entry in entries if not entry.counted]
    strangers = [entry for entry in repeats if keys.get(entry.key) != (entry.run, entry.step)]
    return Claim(
        "each effect that was tried again came with the key of its first time",
        not strangers,
        f"{len(repeats)} tried again after a kill, {len(strangers)} with another key; "
        f"{len({entry.pid for entry in entries})} processes at work",
    )


def _counters_agree(entries: Sequence[Entry], totals: dict[str, Total]) -> Claim:
    effects: Counter[str] = Counter()
    flights: Counter[str] = Counter()
    for entry in entries:
        if entry.counted:
            effects[entry.step] += 1
            flights[entry.step] += entry.flights
    sums = {name: Total(effects[name], flights[name]) for name in effects}
    return Claim(
        "the ledger's counters are the sums of its entries",
        sums == totals,
        f"{len(totals)} counters, {sum(total.effects for total in totals.values()):,} effects",
    )


def _ledger_agrees_with_source(
    entries: Sequence[Entry], runs: dict[str, str], days: dict[str, Sums], steps: Sequence[str]
) -> Claim:
    counted = {(entry.run, entry.step): entry.flights for entry in entries if entry.counted}
    wrong = [
        (run, name)
        for day, run in runs.items()
        for name in steps
        if day not in days or counted.get((run, name)) != days[day].flights
    ]
    return Claim(
        "every step of every day handled the flights that the source has, no more, no fewer",
        not wrong,
        f"{sum(sums.flights for sums in days.values()):,} flights by {len(steps)} steps; "
        f"{len(wrong)} steps differ",
    )


def _reports_agree_with_source(reports: Path, runs: dict[str, str], days: dict[str, Sums]) -> Claim:
    wrong = [
        day
        for day in runs
        if _read_tally(reports / f"{day}.json") != days.get(day) or not (reports / f"{day}.md").is_file()
    ]
    return Claim(
        "every day has its report, and its sums are the source's",
        not wrong,
        f"{len(runs) - len(wrong)} of {len(runs)} reports agree" + (f"; not {wrong[0]}" if wrong else ""),
    )


def _year_agrees_with_source(reports: Path, days: Sequence[Sums]) -> Claim:
    found = _read_tally(reports / "year.json")
    sums = Sums(
        flights=sum(day.flights for day in days),
        cancelled=sum(day.cancelled for day in days),
        late=sum(day.late for day in days),
        minutes_lost=sum(day.minutes_lost for day in days),
    )
    return Claim(
        "the summary's sums are the source's",
        found == sums,
        f"{sums.flights:,} flights, {sums.cancelled:,} cancelled, {sums.late:,} late",
    )


def _read_tally(path: Path) -> Sums | None:
    """A report's sums, by the standard library's own JSON reader; None when there is no whole report."""
    try:
        tally = json.loads(path.read_bytes())["tally"]
        return Sums(tally["flights"], tally["cancelled"], tally["late"], tally["minutes_lost"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
