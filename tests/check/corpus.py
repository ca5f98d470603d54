"""The corpus: `faults/`, where `# expect: rule` stands on each line that must be found, and `clean/`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
_EXPECT = re.compile(r"# expect: (?P<rules>[a-z, -]+?)(?: via (?P<way>.+))?$")


@dataclass(frozen=True)
class Fault:
    """One planted fault."""

    path: Path
    line: int
    rule: str
    way: tuple[str, ...]
    """The functions that lead there; empty when it stands in the workflow itself."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(HERE)}:{self.line}:{self.rule}"


def places(folder: str) -> list[Path]:
    """The modules and packages of a part of the corpus."""
    return sorted(path for path in (HERE / folder).iterdir() if path.suffix == ".py" or _has_code(path))


def _has_code(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.py"))


def faults(place: Path) -> Counter[Fault]:
    """The faults planted in a module or package."""
    return Counter(_faults(place))


def _faults(place: Path) -> Iterator[Fault]:
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            match = _EXPECT.search(line)
            for rule in match["rules"].split(",") if match else ():
                assert match is not None
                way = tuple(match["way"].split(" > ")) if match["way"] else ()
                yield Fault(path, number, rule.strip(), way)
