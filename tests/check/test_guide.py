"""The guide tells every rule, with an example in which it is found and one in which it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perdure.check.rules import RULES
from perdure.check.search import check
from tests.test_docs import FENCE

HEADER = """
import asyncio, hashlib, os, random, subprocess, time, urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import perdure, requests
from perdure import now, step, workflow

CACHE: dict[str, int] = {}

@step
async def note(text: str) -> None: ...

@step
async def charge(order: str) -> None: ...
"""


@pytest.fixture(scope="module")
def sections(checkout: Path) -> dict[str, str]:
    text = (
        (checkout / "docs" / "guides" / "checking.md")
        .read_text(encoding="utf-8")
        .partition("## The rules")[2]
    )
    parts = re.split(r"^### `([a-z-]+)`$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rules_found(folder: Path, code: str) -> set[str]:
    (folder / "example.py").write_text(HEADER + code, encoding="utf-8")
    return {finding.rule for finding in check([str(folder)]).findings}


def test_every_rule_has_its_section(sections: dict[str, str]) -> None:
    assert [*sections, "allow-comment"] == list(RULES)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "allow-comment"])
def test_the_examples_of_a_rule_are_what_they_say(
    rule: str, sections: dict[str, str], tmp_path: Path
) -> None:
    faulty, right = FENCE.finditer(sections[rule])

    assert faulty["info"].strip() == "python faulty"
    assert rules_found(tmp_path, faulty["code"]) == {rule}
    assert rules_found(tmp_path, right["code"]) == set()
    assert RULES[rule].fix in " ".join(sections[rule].split())


def test_a_hook_for_pre_commit_runs_the_command(checkout: Path) -> None:
    text = (checkout / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")

    hooks = dict(re.findall(r"^[- ] (\w+): (.+)$", text, re.MULTILINE))

    assert hooks["id"] == "perdure-check"
    assert hooks["entry"] == "perdure check"
    assert hooks["language"] == "python"
    assert hooks["pass_filenames"] == "false"
