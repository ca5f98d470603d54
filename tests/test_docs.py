"""What the documents say is true: code compiles or runs, links lead somewhere, no public name is left out.

A block that begins with ```python must compile (`await` may stand at the top, as in a
notebook). One that begins with ```python run must be a whole program, and is run
in an empty folder; a block ```text prints behind it is all that it writes to stdout, and one
```text again all that it writes when it is run once more there. One that begins with
```python test is a file of tests for pytest alone, which pass; or, with `fails` behind it, do not.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import perdure
import perdure.bridges
import perdure.testing

pytestmark = pytest.mark.slow  # each program of a document is a process of its own

CHECKOUT = Path(__file__).resolve().parent.parent
REFERENCE = CHECKOUT / "docs" / "reference"
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+).+?\1", re.DOTALL)
LINK = re.compile(r"\]\(<?(?P<target>[^)\s>]+)>?(?: \"[^\"]*\")?\)")


def documents() -> list[Path]:
    top = [CHECKOUT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [path for path in [*top, *sorted((CHECKOUT / "docs").rglob("*.md"))] if path.exists()]


@dataclass(frozen=True)
class Block:
    """One piece of Python in a document."""

    path: Path
    line: int
    info: str
    code: str
    prints: tuple[str, ...] = ()
    """What the program writes when it is run once, and again."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(CHECKOUT)}:{self.line}"


def blocks() -> Iterator[Block]:
    for path in documents():
        text = path.read_text(encoding="utf-8")
        fences = list(FENCE.finditer(text))
        for number, match in enumerate(fences):
            info = match["info"].strip()
            if info.split()[:1] == ["python"]:
                indent = len(match["indent"])
                code = "\n".join(line[indent:] for line in match["code"].split("\n"))
                prints = tuple(prints_of(fences[number + 1 :]))
                yield Block(path, text.count("\n", 0, match.start()) + 1, info, code, prints)


def prints_of(fences: Sequence[re.Match[str]]) -> Iterator[str]:
    """What the blocks right behind a program say that it prints."""
    for wanted, match in zip(("text prints", "text again"), fences, strict=False):
        if match["info"].strip() != wanted:
            return
        yield match["code"]


def headings(path: Path) -> set[str]:
    """The anchors that a page offers, as GitHub makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(path: Path) -> Iterator[str]:
    text = CODE.sub("", FENCE.sub("", path.read_text(encoding="utf-8")))
    for target in (match["target"] for match in LINK.finditer(text)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / name).resolve() if name else path
        if not other.exists():
            yield f"{path.relative_to(CHECKOUT)} links to {target}, which is not there"
        elif anchor and other.suffix == ".md" and anchor not in headings(other):
            yield f"{path.relative_to(CHECKOUT)} links to {target}, which has no such heading"


PYTHON = list(blocks())


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_code_in_the_documents_compiles(block: Block) -> None:
    compile(
        "\n" * block.line + block.code,
        str(block.path),
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )


@pytest.mark.parametrize("block", [block for block in PYTHON if "run" in block.info.split()], ids=str)
def test_programs_in_the_documents_run(block: Block, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block.code, encoding="utf-8")

    for prints in block.prints or (None,):
        answer = subprocess.run(
            [sys.executable, "-W", "error", program.name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert answer.returncode == 0, f"{block}\n{answer.stdout}\n{answer.stderr}"
        assert prints is None or answer.stdout == prints, f"{block}\n{answer.stdout}\n{answer.stderr}"


@pytest.mark.parametrize("block", [block for block in PYTHON if "test" in block.info.split()], ids=str)
def test_tests_in_the_documents_come_out_as_they_say(block: Block, tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(block.code, encoding="utf-8")
    alone = ["-p", "no:anyio", "-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error"]

    answer = subprocess.run(
        [sys.executable, "-m", "pytest", *alone, "test_shop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    expected = pytest.ExitCode.TESTS_FAILED if "fails" in block.info.split() else pytest.ExitCode.OK
    assert answer.returncode == expected, f"{block}\n{answer.stdout}\n{answer.stderr}"


def test_every_relative_link_leads_somewhere() -> None:
    broken = [complaint for path in documents() for complaint in broken_links(path)]

    assert not broken, "\n  ".join(["", *broken])


def test_the_reference_is_what_the_docstrings_say() -> None:
    answer = subprocess.run(
        [sys.executable, CHECKOUT / "scripts" / "reference", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr


def test_the_reference_has_every_public_name_and_no_other() -> None:
    entries = [
        name
        for path in sorted(REFERENCE.glob("*.md"))
        if "Written by scripts/reference" in (text := path.read_text(encoding="utf-8"))
        for name in re.findall(r"^## `(\w+)`$", text, re.MULTILINE)
    ]

    public = [name for name in perdure.__all__ if name != "__version__"]
    assert sorted(entries) == sorted([*public, *perdure.testing.__all__, *perdure.bridges.__all__])
