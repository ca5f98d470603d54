"""`perdure export`: journals as JSON, whole or redacted, one or many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perdure.core.records import Kind, Record, Status
from perdure.journals.form import SCHEMA_PATH
from perdure.journals.reading import find_journal
from perdure.stores.base import Batch, RunEnd
from perdure.stores.opening import open_store
from perdure.testing import replay
from tests.faces.conftest import Perdure, Spawn
from tests.journals.conftest import Version, begin
from tests.journals.schema import Schema

FAILS = """
@workflow
async def fails(order: str) -> str:
    await ship(order)
    raise ValueError(order)
"""
LARGE = """
@workflow
async def large(order: str) -> str:
    return await ship(order * 400_000)
"""
PARENT = """
@workflow
async def parent(order: str) -> str:
    child = await start_child(large(order), id=f"the-child-of-{order}")
    return await paid.receive()
"""


def schema() -> Schema:
    return Schema(json.loads(SCHEMA_PATH.read_bytes()))


def test_a_journal_goes_to_stdout_in_the_order_of_the_schema(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "one", "--tag", "team=red")

    answer = perdure("export", "one")

    file = answer.json
    assert answer.code == 0
    assert answer.err == ""
    assert not schema().wrongs(file)
    assert list(file) == ["format", "version", "redacted", "run", "records", "children"]
    assert (file["run"]["id"], file["run"]["status"], file["run"]["result"]) == ("one", "completed", 2)
    assert (file["run"]["input"], file["run"]["tags"]) == ({"n": 1}, {"team": "red"})
    (record,) = file["records"]
    assert list(record) == ["seq", "kind", "key", "digest", "at", "at_ms", "value"]
    assert (record["kind"], record["key"], record["value"]) == ("step", "0/0/add_one", 2)
    assert record["at"].startswith("20")


def test_the_same_run_gives_the_same_bytes_with_a_line_for_each_value(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "one")

    first, second = perdure("export", "one"), perdure("export", "one")

    assert first.out == second.out
    assert '\n      "value": 2\n' in first.out


def test_a_file_that_was_exported_replays(perdure: Perdure, project: Path) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "one")

    answer = perdure("export", "one", "-o", "one.json")

    assert answer.out == ""
    assert "Wrote 1 journal to one.json." in answer.err
    assert replay(project / "one.json").result == 2
    assert not list(project.glob("*.part"))


def test_a_failure_a_large_value_and_children_are_in_it(perdure: Perdure, version: Version) -> None:
    begin(version(FAILS + LARGE + PARENT), "x", "y")

    failed, large, parent, child = (
        perdure("export", id).json for id in ("fails-x", "large-x", "parent-x", "the-child-of-x")
    )

    assert not [wrong for file in (failed, large, parent, child) for wrong in schema().wrongs(file)]
    assert failed["run"]["failure"]["type"] == "builtins:ValueError"
    assert failed["run"]["failure"]["message"] == "x"
    assert len(large["records"][0]["value"]) > 400_000
    assert parent["children"] == [
        {"id": "the-child-of-x", "workflow": "large", "status": "completed", "key": "0/0/large"}
    ]
    assert child["run"]["parent"] == "parent-x"


def test_many_journals_are_a_line_each_newest_first(perdure: Perdure) -> None:
    for number in range(3):
        perdure("run", "shop:plus", "--input", str(number), "--id", f"run-{number}")
    perdure("run", "shop:plus", "--input", "-1", "--id", "ill")
    perdure("start", "shop:asking", "--input", "1", "--id", "asks")

    every = perdure("export", "--all").lines
    completed = perdure("export", "--all", "--status", "completed").lines
    asking = perdure("export", "--all", "--workflow", "asking").lines

    assert [file["run"]["id"] for file in every] == ["asks", "ill", "run-2", "run-1", "run-0"]
    assert [file["run"]["id"] for file in completed] == ["run-2", "run-1", "run-0"]
    assert [file["run"]["id"] for file in asking] == ["asks"]


def test_more_journals_than_a_page_are_all_written(perdure: Perdure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.journals.reading._PAGE", 2)
    for number in range(5):
        perdure("start", "shop:plus", "--input", str(number), "--id", f"run-{number}")

    assert len(perdure("export", "--all").lines) == 5


def test_values_are_taken_out_as_asked(perdure: Perdure) -> None:
    perdure("run", "shop:plus", "--input", "41", "--id", "one")

    by_name = perdure("export", "one", "--redact", "add_one", "--redact", "$.n").json
    all_of_it = perdure("export", "one", "--redact-all").json

    assert by_name["redacted"] == ["add_one", "$.n"]
    assert (by_name["run"]["input"], by_name["records"][0]["value"]) == ({"n": 0}, 0)
    assert by_name["run"]["result"] == 42
    assert all_of_it["run"]["result"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nobody",), 3, "There is no run 'nobody' in 'sqlite:///perdure.db'."),
        (("one", "--generation", "2"), 3, "There is no run 'one' in generation 2"),
        (("one", "--redact", "$.a["), 2, "'$.a[' cannot be read at '['"),
        (("one", "-o", "no/such/folder.json"), 2, "cannot be written"),
        (("one", "--all"), 2, "Give the run's id, or --all."),
        ((), 2, "Give the run's id, or --all."),
        (("one", "--status", "running"), 2, "--status and --workflow go with --all."),
        (("--all", "--status", "asleep"), 2, "'asleep' is no status"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_exported_is_said(
    perdure: Perdure, arguments: tuple[str, ...], code: int, says: str
) -> None:
    perdure("run", "shop:plus", "--input", "1", "--id", "one")

    answer = perdure("export", *arguments)

    assert answer.code == code
    assert says in answer.err
    assert answer.out == ""


def test_a_run_can_be_exported_while_its_worker_is_at_work(perdure: Perdure, spawn: Spawn) -> None:
    perdure("start", "shop:asking", "--input", "1", "--id", "one")
    with spawn("worker", "shop", "--json") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()

        file: dict[str, Any] = perdure("export", "one").json

    assert file["run"]["status"] == "running"


class EndsMeanwhile:
    """A store whose run ends while its journal is read, as a worker may have it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._has_ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def records(self, run: int) -> Any:
        if not self._has_ended:
            self._has_ended = True
            lease = self._store.acquire("test", now_ms=1 << 42, ttl_ms=1)
            record = Record(0, Kind.SIGNAL, "approval", 0, 1 << 42, b'"ann"', run)
            ended = RunEnd(Status.COMPLETED, b'"ann"', 1 << 42, None, run)
            self._store.commit(lease, Batch(records=[record], ends=[ended]))
            self._store.release(lease)
        return self._store.records(run)


def test_a_run_that_ends_while_it_is_read_is_exported_as_one_that_has_ended(perdure: Perdure) -> None:
    perdure("start", "shop:asking", "--input", "1", "--id", "one")
    store = open_store("sqlite:///perdure.db")

    journal = find_journal(EndsMeanwhile(store), "one")  # type: ignore[arg-type]

    store.close()
    assert journal.run.status == Status.COMPLETED
    assert len(journal.records) == 1
