"""The proof: what was told, held against the feed, worked out again by the plainest code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from perdure import Late, Window

from ..flights.proof import Claim
from .feed import END, Report
from .hours import Delays, add, storm_of, storm_run

Hour = tuple[str, datetime]


@dataclass(frozen=True, slots=True)
class Told:
    """What came of the feed."""

    windows: Sequence[Window[Delays]]
    late: Sequence[Late]
    alerts: Sequence[str]
    """The ids of the runs."""

    @property
    def last(self) -> dict[Hour, Window[Delays]]:
        """The last revision of each window."""
        return {(window.key, window.start): window for window in self.windows}

    @property
    def flights(self) -> int:
        """Those that are in a window, or were told to be late."""
        return sum(window.events for window in self.last.values()) + len(self.late)


def distinct(reports: Iterable[Report]) -> dict[str, Report]:
    """The reports by their ids, each once, without the end of the feed."""
    return {report.id: report for report in reports if report.departed.flight != END}


def delays_by_hour(reports: Iterable[Report]) -> dict[Hour, Delays]:
    """The same as the windows, of all reports at once."""
    found: dict[Hour, Delays] = {}
    for report in reports:
        hour = report.happened.replace(minute=0, second=0, microsecond=0)
        place = (report.departed.airport, hour)
        found[place] = add(found.get(place, Delays()), report.departed)
    return found


def storms_of(windows: Iterable[Window[Delays]]) -> Counter[str]:
    """The runs that there should be, and how many stormy hours were told of each storm."""
    stormy = (storm for window in windows if (storm := storm_of(window)) is not None)
    return Counter(storm_run(*storm) for storm in stormy)


def prove(feed: Sequence[Report], told: Told) -> list[Claim]:
    reports = distinct(feed)
    late = {one.id for one in told.late}
    expected = delays_by_hour(report for name, report in reports.items() if name not in late)
    found = {place: window.value for place, window in told.last.items()}
    differ = [place for place in expected.keys() | found.keys() if expected.get(place) != found.get(place)]
    storms = storms_of(told.windows)
    return [
        Claim(
            "the windows are those of a plain computation, row by row",
            not differ and bool(found),
            f"{len(found):,} windows of {sum(delays.flights for delays in found.values()):,} flights; "
            f"{len(differ)} differ",
        ),
        Claim(
            "each flight is in one window, or was told to be late, though reports came twice",
            told.flights == len(reports) and len(late) == len(told.late),
            f"{len(feed):,} reports of {len(reports):,} flights, {len(late)} of them later than twelve hours",
        ),
        _revisions_in_order(told),
        Claim(
            "each storm has one alert, and no other day has",
            sorted(storms) == sorted(told.alerts),
            f"{len(told.alerts)} alerts of {sum(storms.values())} stormy hours",
        ),
    ]


def _revisions_in_order(told: Told) -> Claim:
    counts: Counter[Hour] = Counter()
    wrong = 0
    for window in told.windows:
        place = (window.key, window.start)
        counts[place] += 1
        wrong += window.revision != counts[place] or len(window.supersedes) != (window.revision > 1)
    corrected = sum(count > 1 for count in counts.values())
    return Claim(
        "each result was told once: its revisions count from 1, and each supersedes the one before",
        not wrong,
        f"{len(told.windows):,} results, {corrected} windows corrected by late reports, {wrong} out of order",
    )
