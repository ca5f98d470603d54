"""The journals of every release replay with the code of today, and so it stays."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import JournalMismatch
from perdure.core.records import Kind, Status
from perdure.journals.form import SCHEMA_PATH, pretty, read_journal, word, write_journal
from perdure.journals.redaction import redact
from perdure.testing import replay
from tests.golden import program
from tests.journals.schema import Schema

FOLDER = Path(__file__).parent
JOURNALS = sorted(FOLDER.glob("*/*.json"))
RELEASES = sorted({path.parent.name for path in JOURNALS})
WORKFLOWS = {value.name: value for value in vars(program).values() if isinstance(value, perdure.Workflow)}
USED_IN_A_RUN = {
    "State", "Signal", "Update", "compensate", "continue_as_new", "now", "patched", "random", "run_info",
    "start_child", "step", "step_info", "uuid", "workflow",
}  # fmt: skip


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def of(release: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in JOURNALS if path.parent.name == release]


@pytest.mark.parametrize("path", JOURNALS, ids=name_of)
def test_a_journal_of_a_release_replays_to_its_end(path: Path) -> None:
    recorded = json.loads(path.read_bytes())

    replayed = replay(path, WORKFLOWS[recorded["run"]["workflow"]])

    assert replayed.records == len(recorded["records"])
    if "result" in recorded["run"]:
        assert replayed.status == "completed"


@pytest.mark.parametrize("path", JOURNALS, ids=name_of)
def test_a_journal_of_a_release_is_read_and_written_byte_for_byte(path: Path) -> None:
    data = path.read_bytes()

    again = pretty(write_journal(read_journal(data, path.name)))

    assert again == data


@pytest.mark.parametrize("path", JOURNALS, ids=name_of)
def test_a_journal_of_a_release_keeps_to_the_schema(path: Path) -> None:
    schema = Schema(json.loads(SCHEMA_PATH.read_bytes()))

    wrongs = schema.wrongs(json.loads(path.read_bytes()))

    assert not wrongs


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_has_a_journal_with_each_kind_of_record_and_each_way_to_end(release: str) -> None:
    journals = of(release)

    kinds = {record["kind"] for journal in journals for record in journal["records"]}
    ends = {journal["run"]["status"] for journal in journals}

    assert kinds == {word(kind) for kind in Kind}
    assert ends == {word(status) for status in Status}


def test_the_latest_release_has_a_journal_of_each_workflow_of_the_program() -> None:
    recorded = {journal["run"]["workflow"] for journal in of(RELEASES[-1])}

    assert recorded == WORKFLOWS.keys()


def test_the_program_uses_every_block() -> None:
    tree = ast.parse(Path(program.__file__).read_text(encoding="utf-8"))
    blocks = {
        name
        for name in perdure.__all__
        if name[0].islower() or name in ("Signal", "State", "Update")
        if getattr(getattr(perdure, name), "__module__", "").startswith("perdure.blocks")
    } - {"start_within", "event", "upcast", "downcast"}  # which leave nothing in a journal

    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert blocks == USED_IN_A_RUN, "a block is new: put it into the program, in a workflow of its own"
    assert blocks <= used


def test_a_change_in_the_program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in JOURNALS if path.stem == "failing")
    monkeypatch.setattr(program.stumble, "name", "trip")

    with pytest.raises(JournalMismatch, match="recorded step 'stumble' at '0/0/stumble'"):
        replay(path, program.failing)


@pytest.mark.parametrize("path", JOURNALS, ids=name_of)
def test_a_redacted_journal_is_as_long_and_keeps_to_the_schema(path: Path) -> None:
    schema = Schema(json.loads(SCHEMA_PATH.read_bytes()))
    whole = read_journal(path.read_bytes(), path.name)

    without = redact(whole, ["*"])

    wrongs = schema.wrongs(json.loads(write_journal(without)))
    assert not wrongs
    assert [record.key for record in without.records] == [record.key for record in whole.records]
    assert read_journal(write_journal(without), "again") == without
