"""`schema check`, `diff`, `history` and `samples`: what they find in a store and in a folder."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine
from perdure.blocks import casting
from tests.faces.conftest import Perdure

LETTERS = """
from dataclasses import dataclass
from typing import Any

from perdure import Signal, State, Stream, Update, event, step, upcast, workflow


@event("letter.sent")
@dataclass
class Sent:
    to: str
    grams: int


letters = Stream("letters", Sent, key=lambda one: one.to)


@dataclass
class Letter:
    to: str
    grams: int


@dataclass
class Stamp:
    cents: int


answer = Signal[Stamp]("answer")
weighed = State[Stamp]("weighed")
again = Update[Stamp, Stamp]("again")


@step
def frank(letter: Letter) -> Stamp:
    return Stamp(letter.grams)


@workflow
async def post(letter: Letter) -> Stamp:
    async def more(stamp: Stamp) -> Stamp:
        return stamp

    again.handle(more)
    stamp = await frank(letter)
    await letters.append(Sent(letter.to, letter.grams))
    weighed.set(stamp)
    await answer.receive()
    return await answer.receive()
"""


@pytest.fixture
def change(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write the module anew, with some of it replaced, as the next deploy has it."""

    def write(*pairs: tuple[str, str], more: str = "") -> None:
        text = LETTERS
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        sys.modules.pop("letters", None)
        monkeypatch.setattr(casting, "_casters", {})  # as in another process
        (project / "letters.py").write_text(text + more)

    write()
    return write


@pytest.fixture
def store(change: Callable[..., None], project: Path) -> str:
    """Three runs that wait, one of them told something, and their events."""
    sys.path.insert(0, str(project))
    import letters  # pyright: ignore[reportMissingImports]

    module: Any = letters
    url = f"sqlite:///{project}/letters.db"

    async def post() -> None:
        async with Engine(url, workflows=[module.post], handlers=[]) as engine:
            for number in range(3):
                call = module.post(module.Letter(f"ann-{number}", 10))
                run = await engine.start(call, id=f"letter-{number}")
                async for _ in run.watch(module.weighed):
                    break
            await run.send(module.answer, module.Stamp(1))
            await run.update(module.again, module.Stamp(1))
            await engine.append(module.letters, module.Sent("bob", 20), id="last")

    asyncio.run(post())
    return url


def findings(perdure: Perdure, *arguments: str) -> list[tuple[str, str, str, int]]:
    """Rule, where, path, and how often."""
    answer = perdure("schema", "check", "letters", *arguments, "--json")
    found = answer.json["findings"]
    assert answer.code == (1 if found else 0), answer
    return [(one["rule"], one["where"], one["path"], one["count"]) for one in found]


EVENT = "letter.sent version 1 of stream letters"
NEW_EVENT = "letter.sent version 2 of stream letters"
NEXT = (
    '@event("letter.sent")\n@dataclass\nclass Sent:',
    '@event("letter.sent", version=2)\n@dataclass\nclass Sent:\n    cents: int',
)
"""A new version that needs a field more."""


def test_code_that_goes_with_what_is_stored_passes(perdure: Perdure, store: str) -> None:
    answer = perdure("schema", "check", "letters", "--store", store)

    assert (answer.code, answer.out) == (0, "")
    assert answer.err == f"0 findings in 4 events and 3 open runs of {store}.\n"


@pytest.mark.parametrize(
    ("old", "new", "where", "count"),
    [
        ("class Letter:\n    to: str", "class Letter:\n    to: int", "input of post()", 3),
        ("class Letter:", "class Letter:\n    more: str", "input of post()", 3),
        ("-> Stamp:\n    return Stamp(letter.grams)", "-> str:\n    return ''", "result of frank()", 3),
        ("Signal[Stamp]", "Signal[str]", "signal answer", 1),
        ("Update[Stamp, Stamp]", "Update[str, Stamp]", "update again", 1),
        ("State[Stamp]", "State[str]", "state weighed", 3),
    ],
)
def test_what_open_runs_hold_and_new_code_cannot_read_is_found(
    perdure: Perdure, store: str, change: Callable[..., None], old: str, new: str, where: str, count: int
) -> None:
    change((old, new))

    ((rule, at, _, found),) = findings(perdure, "--store", store)

    assert (rule, at, found) == ("unreadable", where, count)
    assert "run letter-2" in perdure("schema", "check", "letters", "--store", store).out


def test_what_was_sent_and_waits_is_read_too(
    perdure: Perdure, store: str, change: Callable[..., None]
) -> None:
    perdure("send", "letter-0", "answer", '{"cents":2}', "--store", store)
    change(("Signal[Stamp]", "Signal[str]"))

    ((_, at, _, found),) = findings(perdure, "--store", store)

    assert (at, found) == ("signal answer", 2)


def test_events_that_new_code_cannot_read_are_found_with_path_side_and_ids(
    perdure: Perdure, store: str, change: Callable[..., None]
) -> None:
    change(
        NEXT
    )  # fmt: skip

    answer = perdure("schema", "check", "letters", "--store", store)

    assert answer.code == 1
    assert "letter.sent version 2 of stream letters: incompatible at $.cents" in answer.out
    assert "required field added (it has no default), beside version 1" in answer.out
    assert "the new code cannot read what is stored" in answer.out
    assert re.search(r"in: event \w+.*event last", answer.out)
    assert findings(perdure, "--store", store)[0] == ("unreadable", EVENT, "event 'letter.sent'", 4)


def test_a_version_that_looks_otherwise_without_being_raised_is_found(
    perdure: Perdure, store: str, change: Callable[..., None]
) -> None:
    change(("class Sent:\n    to: str\n    grams: int", "class Sent:\n    to: str\n    grams: float"))

    assert findings(perdure, "--store", store) == [("changed", EVENT, "$.grams", 1)]


def test_a_gap_between_upcasters_and_one_that_is_not_pure_are_found(
    perdure: Perdure, store: str, change: Callable[..., None]
) -> None:
    change(
        ('@event("letter.sent")', '@event("letter.sent", version=4)'),
        more="@upcast('letter.sent', 2)\ndef _(payload: Any) -> Any:\n    return payload\n",
    )
    gaps = findings(perdure, "--store", store)
    change(
        ('@event("letter.sent")', '@event("letter.sent", version=2)'),
        more="calls: list[int] = []\n\n\n@upcast('letter.sent', 1)\ndef one(payload: Any) -> Any:\n"
        "    calls.append(1)\n    return {**payload, 'grams': len(calls)}\n",
    )

    assert ("gap", "letter.sent version 4 of stream letters", "", 1) in gaps
    assert findings(perdure, "--store", store) == [("impure", EVENT, "", 1)]


def test_a_folder_of_samples_stands_for_the_store_in_ci(
    perdure: Perdure, store: str, change: Callable[..., None], project: Path
) -> None:
    written = perdure("schema", "samples", "letters", "--store", store, "--to", "samples")
    again = perdure("schema", "samples", "letters", "--to", "samples")

    assert sorted(written.out.splitlines()) == [
        f"samples/{name}.json"
        for name in (
            "event/letters/letter.sent.1", "input/post", "result/frank", "result/post", "signal/answer",
            "state/weighed", "update/again",
        )
    ]  # fmt: skip
    assert (again.out, again.err) == ("", "0 files written.\n")
    file = json.loads((project / "samples/event/letters/letter.sent.1.json").read_text())
    assert file["sample"] == {"to": "ann-0", "grams": 10}
    assert findings(perdure, "--against", "samples") == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (*NEXT, {("sample", EVENT), ("incompatible", NEW_EVENT), ("missing", NEW_EVENT)}),
        ("Sent:\n    to: str\n    grams: int", "Sent:\n    to: str\n    grams: float", {("changed", EVENT)}),
        ('"letter.sent"', '"letter.gone"', {("removed", EVENT), ("missing", EVENT.replace("sent", "gone"))}),
        ("Signal[Stamp]", "Signal[str]", {("sample", "signal answer"), ("incompatible", "signal answer")}),
        (
            'Signal[Stamp]("answer")', 'Signal[Stamp]("reply")',
            {("removed", "signal answer"), ("missing", "signal reply")},
        ),
        (
            "-> Stamp:\n    return Stamp(letter.grams)", "-> str:\n    return ''",
            {("sample", "result of frank()"), ("incompatible", "result of frank()")},
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_sample_is_found_without_a_store(
    perdure: Perdure, store: str, change: Callable[..., None], old: str, new: str, found: set[tuple[str, str]]
) -> None:
    perdure("schema", "samples", "letters", "--store", store, "--to", "samples")
    change((old, new))

    assert {one[:2] for one in findings(perdure, "--against", "samples")} == found


def test_a_sample_of_an_older_version_stays_and_is_read_through_the_upcasters(
    perdure: Perdure, store: str, change: Callable[..., None], project: Path
) -> None:
    perdure("schema", "samples", "letters", "--store", store, "--to", "samples")
    casters = "@upcast('letter.sent', 1)\ndef up(old: Any) -> Any:\n    return {**old, 'cents': KEY}\n"
    renewed = (
        NEXT,
        ("letters = Stream(", 'letters = Stream(compat="backward_transitive", name='),
        ('name="letters", Sent', 'name="letters", of=Sent'),
    )  # fmt: skip
    change(*renewed, more=casters.replace("KEY", "1"))
    perdure("schema", "samples", "letters", "--to", "samples")

    assert len(list((project / "samples/event/letters").iterdir())) == 2
    assert findings(perdure, "--against", "samples") == []
    assert findings(perdure, "--store", store) == []

    change(*renewed, more=casters.replace("KEY", "old['no']"))
    ((rule, where, path, _),) = findings(perdure, "--against", "samples")
    assert (rule, where, path) == ("sample", EVENT, "upcast('letter.sent', 1)")


def test_diff_says_what_the_code_changes_and_whom_it_breaks(
    perdure: Perdure, store: str, change: Callable[..., None]
) -> None:
    same = perdure("schema", "diff", "letters", "--store", store)
    change(
        NEXT,
    )  # fmt: skip

    assert (same.code, same.out, same.err) == (0, "", "The code changes nothing.\n")
    assert perdure("schema", "diff", "letters", "--store", store).out.splitlines() == [
        "letters/letter.sent 1 → 2: $.cents: required field added",
        "  it has no default; the new code cannot read what is stored",
    ]
    assert perdure("schema", "diff", "letters", "--store", store, "--json").json[0]["breaks"] == ["backward"]


def test_history_lists_the_versions_that_a_store_has_had(perdure: Perdure, store: str) -> None:
    answer = perdure("schema", "history", "--store", store)

    assert re.fullmatch(r"letters/letter\.sent 1  [0-9a-f]{16}  20\d\d-.* UTC\n", answer.out)
    (row,) = perdure("schema", "history", "letters", "--store", store, "--json").json
    assert (row["type"], row["schema"]["$ref"]) == ("letter.sent", "#/$defs/Sent")
    assert (
        perdure("schema", "history", "others", "--store", store).err
        == "No events have been appended to 'others'.\n"
    )


def test_what_cannot_be_checked_says_so(perdure: Perdure, project: Path, change: Callable[..., None]) -> None:
    (project / "empty.py").write_text("")
    (project / "broken").mkdir()
    (project / "broken" / "x.json").write_text("{}")
    (project / "folder" / "x.json").mkdir(parents=True)

    nothing = perdure("schema", "check", "letters")
    empty = perdure("schema", "check", "empty", "--against", "broken")
    missing = perdure("schema", "check", "letters", "--against", "nowhere")
    broken = perdure("schema", "check", "letters", "--against", "broken")
    unreadable = perdure("schema", "check", "letters", "--against", "folder")
    unwritable = perdure("schema", "samples", "letters", "--to", "empty.py")

    assert [one.code for one in (nothing, empty, missing, broken, unreadable, unwritable)] == [2] * 6
    assert "'folder/x.json' cannot be used: Is a directory." in unreadable.err
    assert "'empty.py/event/letters' cannot be used: Not a directory." in unwritable.err
    assert "hint: Name another file or folder" in unwritable.err
    assert "hint: Give --store URL, --against DIR, or both." in nothing.err
    assert "there is no stream, workflow or step here" in empty.err
    assert "There is no folder 'nowhere'" in missing.err
    assert "x.json: this is no schema file" in broken.err
