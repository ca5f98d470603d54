"""`# perdure: allow[rule] reason`: what it allows, where, and when it allows nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.check.search import check

HEAD = """
import time
import uuid
from perdure import workflow

def stamp():
    return time.time(){stamp}

@workflow
async def shows():
"""


def findings(folder: Path, body: str, *, stamp: str = "") -> list[tuple[str, str]]:
    file = folder / "shop.py"
    file.write_text(HEAD.replace("{stamp}", stamp) + body, encoding="utf-8")
    return [(finding.rule, finding.message) for finding in check([str(file)]).findings]


@pytest.mark.parametrize(
    "body",
    [
        "    print(time.time())  # perdure: allow[clock] only shown\n",
        "    # perdure: allow[clock] only shown\n    print(time.time())\n",
        "    print(\n        time.time(),\n    )  # perdure: allow[clock] only shown\n",
        "    print(time.time(), uuid.uuid4())  #perdure:allow[clock,uuid] only shown\n",
        "    if time.time() > 3:  # perdure: allow[clock] only shown\n        print('late')\n",
        "    print(stamp())  # perdure: allow[clock] the way that leads there\n",
    ],
)
def test_a_comment_with_a_rule_and_a_reason_allows_its_statement(tmp_path: Path, body: str) -> None:
    found = findings(tmp_path, body)

    assert found == []


@pytest.mark.parametrize(
    "body",
    [
        "    print(time.time())  # perdure: allow[uuid] another rule\n",
        "    # perdure: allow[clock] not the next line\n\n    print(time.time())\n",
        "    if True:  # perdure: allow[clock] not the whole block\n        print(time.time())\n",
        "    print('# perdure: allow[clock] a text')\n    print(time.time())\n",
        "    print(time.time())\n    print('after')  # perdure: allow[clock] not the line above\n",
    ],
)
def test_a_comment_allows_nothing_else(tmp_path: Path, body: str) -> None:
    found = findings(tmp_path, body)

    assert [rule for rule, _ in found] == ["clock"]


def test_a_comment_at_the_place_itself_allows_every_way_there(tmp_path: Path) -> None:
    body = "    print(stamp())\n    print(stamp())\n"

    found = findings(tmp_path, body, stamp="  # perdure: allow[clock] only shown")

    assert found == []


def test_a_way_that_no_comment_allows_is_still_told(tmp_path: Path) -> None:
    body = (
        "    print(stamp())  # perdure: allow[clock] only shown\n    other()\n\ndef other():\n    stamp()\n"
    )

    found = findings(tmp_path, body)

    assert [rule for rule, _ in found] == ["clock"]


@pytest.mark.parametrize(
    ("comment", "wrong"),
    [
        ("# perdure: allow[clocks] only shown", "there is no rule 'clocks'"),
        ("# perdure: allow[clock]", "it gives no reason"),
        ("# perdure: allow only shown", "it names no rule"),
        ("# perdure: allow[] only shown", "it names no rule"),
    ],
)
def test_a_comment_that_is_wrong_allows_nothing_and_is_told(tmp_path: Path, comment: str, wrong: str) -> None:
    found = findings(tmp_path, f"    print(time.time())  {comment}\n")

    assert [rule for rule, _ in found] == ["clock", "allow-comment"]
    assert wrong in found[1][1]
