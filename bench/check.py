"""What the static check costs: when a workflow is decorated, at the start of a program, and as a command.

The workflow is the example's, with a helper beside it: 60 lines with its steps.

Limit: `ast.parse` of the same source, without which nothing can be said of it;
of a start, the same start with `PERDURE_CHECK=off`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .measure import Figure, Work, beside, timed

SOURCE = Path(__file__).resolve().parent.parent / "examples" / "checkout" / "workflow.py"
MODULES = 100


def measure(work: Work) -> Iterator[Figure]:
    folder = _write_modules(work)
    yield _one_workflow(work)
    yield _start(work, folder)
    yield _command(work, folder)


def _one_workflow(work: Work) -> Figure:
    from examples.checkout.workflow import checkout
    from perdure.check import quick

    text = SOURCE.read_text(encoding="utf-8")
    times = work.size(50, quick=2)

    def look() -> float:
        spent: list[float] = []
        for _ in range(times):
            quick.forget()
            began = time.perf_counter()
            assert quick.find(checkout.fn) == ()
            spent.append(time.perf_counter() - began)
        return sum(spent) / times * 1_000

    def parse() -> float:
        return timed(lambda: [ast.parse(text) for _ in range(times)]) / times * 1_000

    pairs = [beside(parse, look) for _ in work.repeats(9)]
    values, limits = zip(*pairs, strict=True)
    name = "check of a workflow, as it is decorated"
    return Figure(name, "ms", values, "ast.parse of its file", limits, target=5)


def _write_modules(work: Work) -> Path:
    folder = work.fresh_path().parent
    text = SOURCE.read_text(encoding="utf-8").replace("from .client import post", "post = print")
    for number in range(MODULES):
        (folder / f"shop_{number}.py").write_text(text, encoding="utf-8")
    return folder


def _start(work: Work, folder: Path) -> Figure:
    program = (
        "import time, perdure; began = time.perf_counter()\n"
        f"for number in range({MODULES}): __import__(f'shop_{{number}}')\n"
        "print(time.perf_counter() - began)"
    )

    def start(check: str) -> float:
        environment = {**os.environ, "PERDURE_CHECK": check}
        command = [sys.executable, "-c", program]
        answer = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        return float(answer.stdout) * 1_000

    start("on")  # compiles
    pairs = [beside(lambda: start("off"), lambda: start("on")) for _ in work.repeats(7)]
    values, limits = zip(*pairs, strict=True)
    return Figure(f"{MODULES} modules with one workflow", "ms", values, "without the check", limits)


def _command(work: Work, folder: Path) -> Figure:
    from perdure.check.search import check

    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]

    def whole() -> float:
        return MODULES / timed(lambda: check([str(folder)]))

    def parse() -> float:
        return MODULES / timed(lambda: [ast.parse(text) for text in texts])

    pairs = [beside(parse, whole) for _ in work.repeats()]
    values, limits = zip(*pairs, strict=True)
    return Figure("perdure check", "files/s", values, "ast.parse of them", limits, better="more")
