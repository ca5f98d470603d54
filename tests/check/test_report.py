"""What is written: SARIF as its standard asks, and places that editors understand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perdure.check.report import as_json, as_sarif, lines
from perdure.check.rules import RULES
from perdure.check.search import Report, check

FAULTS = Path(__file__).resolve().parent / "faults"
LEVELS = {"none", "note", "warning", "error"}


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.chdir(FAULTS)
    return check(["shop"])


@pytest.fixture
def log(shop: Report) -> dict[str, Any]:
    return json.loads(as_sarif(shop, version="1.2.3"))


def assert_region(region: dict[str, int]) -> None:
    assert region["startLine"] >= 1
    assert region["startColumn"] >= 1
    end = (region.get("endLine", region["startLine"]), region.get("endColumn", 1 << 30))
    assert end > (region["startLine"], region["startColumn"])


def assert_place(place: dict[str, Any]) -> None:
    uri = place["artifactLocation"]["uri"]
    assert "\\" not in uri
    assert " " not in uri
    assert not uri.startswith("/")
    assert_region(place["region"])


def test_the_log_has_the_shape_of_sarif_2_1_0(log: dict[str, Any]) -> None:
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "perdure"
    assert driver["version"] == "1.2.3"
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"].endswith(".")
        assert rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in LEVELS
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    assert run["invocations"][0]["executionSuccessful"] is True


def test_each_result_names_its_rule_its_place_and_its_way(log: dict[str, Any], shop: Report) -> None:
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]

    assert len(run["results"]) == len(shop.findings) > 0
    for result, finding in zip(run["results"], shop.findings, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule
        assert result["level"] in LEVELS
        assert result["message"]["text"].startswith(finding.message)
        (location,) = result["locations"]
        assert_place(location["physicalLocation"])
        for flow in result.get("codeFlows", ()):
            steps = flow["threadFlows"][0]["locations"]
            assert len(steps) == len(finding.chain) > 1
            for step in steps:
                assert_place(step["location"]["physicalLocation"])
                assert step["location"]["message"]["text"]


def test_a_file_that_cannot_be_read_is_told_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("async def (:\n", encoding="utf-8")

    log = json.loads(as_sarif(check([str(tmp_path)]), version="1"))

    (invocation,) = log["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    assert "broken.py cannot be read" in invocation["toolExecutionNotifications"][0]["message"]["text"]


def test_columns_are_counted_in_characters(tmp_path: Path) -> None:
    head = "import time\nfrom perdure import workflow\n\n@workflow\nasync def f():\n"
    text = f'{head}    return "é→", time.time()\n'
    (tmp_path / "accents.py").write_text(text, encoding="utf-8")

    (finding,) = check([str(tmp_path)]).findings

    line = text.splitlines()[finding.line - 1]
    assert line[finding.column - 1 : finding.end_column - 1] == "time.time()"


def test_json_holds_the_way_with_each_place(shop: Report) -> None:
    found: Any = as_json(shop)["findings"]

    by_clock = next(finding for finding in found if finding["rule"] == "clock")
    assert [(hop["function"], hop["path"]) for hop in by_clock["chain"]] == [
        ("checkout", "shop/orders.py"),
        ("write", "shop/audit.py"),
        ("describe", "shop/audit.py"),
    ]
    assert by_clock["fix"] == RULES["clock"].fix


def test_text_tells_place_why_fix_and_way(shop: Report) -> None:
    text = [line for _, line in lines(shop)]

    assert text[0].startswith("shop/audit.py:14:22: clock: datetime.datetime.now() reads")
    assert text[1].startswith("    why: ")
    assert text[2].startswith("    fix: ")
    assert text[3] == (
        "    way: checkout (shop/orders.py:19) → write (shop/audit.py:10) → describe (shop/audit.py:14)"
    )
