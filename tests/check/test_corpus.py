"""The check on real code: every planted fault is found in its place and by its way, and nothing else is."""

from __future__ import annotations

import ast
import shutil
from collections import Counter
from pathlib import Path

import pytest

from perdure.check.findings import Finding
from perdure.check.project import Project
from perdure.check.rules import RULES
from perdure.check.search import check, look
from perdure.check.values import Function
from perdure.check.walk import Walk
from tests.check.corpus import Fault, faults, places
from tests.test_docs import blocks


def as_fault(finding: Finding) -> Fault:
    way = tuple(hop.function for hop in finding.chain)
    return Fault(Path(finding.path).resolve(), finding.line, finding.rule, way if len(way) > 1 else ())


@pytest.mark.parametrize("place", places("faults"), ids=lambda path: path.name)
def test_every_planted_fault_is_found_in_its_place_and_nothing_else(place: Path) -> None:
    planted = faults(place)

    found = Counter(map(as_fault, check([str(place)]).findings))

    assert not planted - found, "missed"
    assert not found - planted, "found, and not planted"


@pytest.mark.parametrize("place", places("clean"), ids=lambda path: path.name)
def test_code_that_only_looks_faulty_is_let_be(place: Path) -> None:
    report = check([str(place)])

    assert report.workflows > 0
    assert report.findings == ()


def test_the_corpus_has_faults_of_every_rule() -> None:
    planted = sum(map(faults, places("faults")), Counter[Fault]())

    assert planted.total() >= 140
    assert {fault.rule for fault in planted} == RULES.keys() - {"allow-comment"}
    assert sum(len(fault.way) > 2 for fault in planted) >= 8


def test_the_examples_have_no_finding(checkout: Path) -> None:
    report = check([str(checkout / "examples")])

    assert report.workflows >= 4
    assert report.findings == ()


def test_the_code_in_the_documents_has_no_finding(tmp_path: Path) -> None:
    for number, block in enumerate(blocks()):
        if "faulty" not in block.info.split():
            (tmp_path / f"block_{number}.py").write_text("\n" * block.line + block.code, encoding="utf-8")

    report = check([str(tmp_path)])

    assert report.workflows >= 20
    assert [(finding.path, finding.line, finding.message) for finding in report.findings] == []


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.slow
def test_code_of_all_kinds_is_walked_without_an_accident() -> None:
    installed = Path(pytest.__file__).parent.parent
    files = [*Path(ast.__file__).parent.glob("[a-c]*.py"), *(installed / "_pytest").glob("*.py")]
    project = Project()
    walked = 0

    for file in files:
        module = project.load(file)
        assert module is not None
        walk = Walk()
        look(module, walk)
        for node in _functions(module.tree):
            walk.walk_workflow(Function(node, module))
            walked += 1
        walk.finish()
        walk.findings.settle(walk.entries)

    assert walked > 500


def test_an_expression_of_many_thousand_parts_is_let_be(tmp_path: Path) -> None:
    long = " + ".join(["1"] * 5_000)
    text = f"from perdure import workflow\n\n@workflow\nasync def adds() -> int:\n    return {long}\n"
    (tmp_path / "long.py").write_text(text, encoding="utf-8")

    report = check([str(tmp_path)])

    assert report.findings == ()


def test_a_copy_of_the_code_elsewhere_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(place for place in places("faults") if place.name == "shop")
    shutil.copytree(source, tmp_path / "src" / "shop")
    monkeypatch.chdir(tmp_path)

    by_path = check(["src"])
    by_name = check(["src/shop/orders.py"])

    assert len(by_path.findings) == faults(source).total()
    assert by_path.findings == by_name.findings
    assert by_path.findings[0].path == "src/shop/audit.py"


def test_what_is_hidden_or_installed_below_a_folder_is_passed_over(tmp_path: Path) -> None:
    text = "import time\nfrom perdure import workflow\n\n@workflow\nasync def f():\n    time.sleep(1)\n"
    for name in ("shop", ".hidden", "__pycache__", "env/lib/python3/site-packages", "env/lib/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "work.py").write_text(text, encoding="utf-8")
    (tmp_path / "env" / "pyvenv.cfg").touch()

    report = check([str(tmp_path)])

    assert [Path(finding.path) for finding in report.findings] == [tmp_path / "shop" / "work.py"]


def test_a_name_that_a_star_import_gives_is_followed(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("import time\ndef stamp():\n    return time.time()\n")
    (tmp_path / "work.py").write_text(
        "from math import *\nfrom tools import *\nfrom perdure import workflow\n\n"
        "@workflow\nasync def f():\n    return stamp() + sqrt(4)\n"
    )

    report = check([str(tmp_path / "work.py")])

    assert [(Path(finding.path).name, finding.rule) for finding in report.findings] == [("tools.py", "clock")]
