"""The flights example's witnesses: its ledger, its files, its source, and the proof that compares them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from examples.flights import domain
from examples.flights.domain import DayReport
from examples.flights.files import remove_leftovers, write_file, write_pretty_json
from examples.flights.ledger import Ledger, Total, read_entries, read_totals
from examples.flights.proof import Claim, prove, read_source
from examples.flights.source import (
    SourceMissing,
    find_source,
    open_flights,
    read_rows,
    read_tables,
    split_by_day,
)

STEPS = ("load", "report")


def count(ledger: Ledger, key: str, *, run: str = "r", step: str = "load", flights: int = 5) -> bool:
    return ledger.count(key=key, run=run, step=step, attempt=1, flights=flights).counted


def test_a_key_is_counted_once_and_its_second_time_is_written_down_as_a_repeat(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as ledger:
        first, second = count(ledger, "a"), count(ledger, "a")

    assert (first, second) == (True, False)
    assert [entry.counted for entry in read_entries(path)] == [True, False]
    assert read_totals(path) == {"load": Total(effects=1, flights=5)}


def test_a_key_is_counted_once_when_many_threads_bring_it_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as one, closing(Ledger(path)) as other, ThreadPoolExecutor(8) as threads:
        counted = list(threads.map(count, [one, other] * 20, ["a"] * 40))

    assert counted.count(True) == 1
    assert read_totals(path)["load"] == Total(effects=1, flights=5)


def test_a_ledger_that_is_not_there_yet_has_no_entries(tmp_path: Path) -> None:
    assert read_entries(tmp_path / "ledger.db") == []


def test_a_file_is_replaced_whole_and_leaves_no_other_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "day.json"
    write_file(path, b"old")

    write_file(path, b"new")

    assert [file.read_bytes() for file in path.parent.iterdir()] == [b"new"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "day.json", b"whole")
    (tmp_path / ".half.tmp").write_bytes(b"ha")

    removed = remove_leftovers(tmp_path)

    assert removed == 1
    assert [file.name for file in tmp_path.iterdir()] == ["day.json"]


def test_the_source_is_split_by_day_and_no_row_is_lost(small_source: Path) -> None:
    with open_flights(small_source) as lines:
        days = dict(split_by_day(lines))

    assert list(days) == ["2013-01-01", "2013-01-02", "2013-01-03"]
    assert [len(list(read_rows(text))) for text in days.values()] == [20, 20, 20]


def test_a_source_whose_days_are_mixed_is_refused() -> None:
    lines = iter(["year,month,day,x\n", "2013,1,1,a\n", "2013,1,2,b\n", "2013,1,1,c\n"])

    with pytest.raises(ValueError, match="2013-01-01 do not stand together"):
        list(split_by_day(lines))


def test_a_folder_without_data_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"flights\.csv\.zip is not there"), open_flights(tmp_path):
        pass


def test_the_tables_are_read_with_their_keys(small_source: Path) -> None:
    tables = read_tables(small_source)

    assert tables.planes["N0"].seats == 180
    assert tables.weather["JFK", "2013-01-02T15:00:00Z"].temperature == 30.2


class Witnesses:
    """A ledger and reports as a run without any trouble leaves them."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source = source
        self.ledger = folder / "ledger.db"
        self.reports = folder / "reports"
        self.runs = {f"2013-01-0{day}": f"flights-2013-01-0{day}" for day in (1, 2, 3)}
        tables = read_tables(source)
        days: list[DayReport] = []
        with open_flights(source) as lines, closing(Ledger(self.ledger)) as ledger:
            for day, text in split_by_day(lines):
                flights, unreadable = domain.parse_flights(read_rows(text))
                kept, cleaning = domain.clean_flights(flights, unreadable=unreadable)
                airlines = domain.rate_airlines(domain.join_flights(kept, tables))
                tally = domain.sum_tallies(airline.tally for airline in airlines)
                days.append(DayReport(day, tally, cleaning, [], [], airlines))
                write_pretty_json(self.reports / f"{day}.json", days[-1])
                write_file(self.reports / f"{day}.md", b"# A day\n")
                for step in STEPS:
                    count(ledger, f"{day} {step}", run=self.runs[day], step=step, flights=len(kept))
            count(ledger, "year", run="year", step="year", flights=60)
        write_pretty_json(self.reports / "year.json", domain.merge_days(days))

    def prove(self) -> list[Claim]:
        return prove(
            source=self.source,
            ledger=self.ledger,
            reports=self.reports,
            runs=self.runs,
            steps=STEPS,
            others={("year", "year")},
        )

    def change(self, sql: str) -> None:
        with closing(sqlite3.connect(self.ledger)) as connection, connection:
            connection.execute(sql)

    def count(self, key: str) -> None:
        with closing(Ledger(self.ledger)) as ledger:
            count(ledger, key, run="flights-2013-01-01", step="load", flights=20)

    def change_report(self, name: str) -> None:
        path = self.reports / f"{name}.json"
        value = json.loads(path.read_bytes())
        value["tally"]["late"] += 1
        path.write_text(json.dumps(value))


@pytest.fixture
def witnesses(small_source: Path, tmp_path: Path) -> Witnesses:
    return Witnesses(small_source, tmp_path / "out")


def test_the_proof_holds_when_nothing_went_wrong(witnesses: Witnesses) -> None:
    claims = witnesses.prove()

    assert [claim.text for claim in claims if not claim.holds] == []
    assert "60 flights" in claims[-1].found


def test_the_proof_holds_when_an_effect_was_tried_again_under_its_key(witnesses: Witnesses) -> None:
    witnesses.count("2013-01-01 load")

    claims = witnesses.prove()

    assert all(claim.holds for claim in claims)
    assert "1 tried again after a kill, 0 with another key" in claims[1].found


FRAUDS: dict[str, tuple[Callable[[Witnesses], None], str]] = {
    "a lost effect": (
        lambda all_: all_.change("DELETE FROM entries WHERE key = '2013-01-02 load'"),
        "each of the 7 effects was counted, and counted once",
    ),
    "an effect that came again with a new key": (
        lambda all_: all_.count("another key"),
        "each of the 7 effects was counted, and counted once",
    ),
    "a repeat whose first time is not there": (
        lambda all_: all_.change("UPDATE entries SET counted = 0 WHERE key = '2013-01-02 load'"),
        "each effect that was tried again came with the key of its first time",
    ),
    "a counter that grew by itself": (
        lambda all_: all_.change("UPDATE totals SET flights = flights + 1 WHERE step = 'load'"),
        "the ledger's counters are the sums of its entries",
    ),
    "a step that lost a flight": (
        lambda all_: all_.change("UPDATE entries SET flights = 19 WHERE key = '2013-01-03 report'"),
        "every step of every day handled the flights that the source has, no more, no fewer",
    ),
    "a report that is wrong": (
        lambda all_: all_.change_report("2013-01-03"),
        "every day has its report, and its sums are the source's",
    ),
    "a report that is not there": (
        lambda all_: (all_.reports / "2013-01-03.md").unlink(),
        "every day has its report, and its sums are the source's",
    ),
    "a summary that is wrong": (
        lambda all_: all_.change_report("year"),
        "the summary's sums are the source's",
    ),
}


@pytest.mark.parametrize("fraud", FRAUDS)
def test_the_proof_fails_where_something_is_wrong(witnesses: Witnesses, fraud: str) -> None:
    commit, claim = FRAUDS[fraud]

    commit(witnesses)

    assert claim in {claim.text for claim in witnesses.prove() if not claim.holds}


def test_the_whole_year_is_read_from_the_package_as_it_is_known() -> None:
    days = read_source(find_source())

    assert len(days) == 365
    assert sum(day.flights for day in days.values()) == 336_776
    assert sum(day.cancelled for day in days.values()) == 8_255
