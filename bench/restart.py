"""How long a run stands still when its worker is killed with `kill -9` and started again at once.

From the kill to the first new result on disk: the start of the interpreter, all
imports and the opening of the store included. One run is under way.

Limit: an interpreter that imports perdure and ends.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from . import killing
from .measure import Figure, Work, beside, timed

IMPORT = [sys.executable, "-c", "import perdure"]


def measure(work: Work) -> Iterator[Figure]:
    pairs = [beside(_import_seconds, lambda: _stands_still_seconds(work)) for _ in work.repeats(10)]
    values, limits = zip(*pairs, strict=True)
    yield Figure("restart after kill -9", "s", values, "import perdure, in a new process", limits, target=0.5)


def _import_seconds() -> float:
    return timed(lambda: subprocess.run(IMPORT, check=True))


def _stands_still_seconds(work: Work) -> float:
    path = work.fresh_path()
    worker = killing.bring_half_way(path, 1)
    began = time.perf_counter()
    killing.kill(worker)
    worker = killing.start("go-on", path, 1)
    killing.read_line(worker)
    spent = time.perf_counter() - began
    worker.communicate()
    return spent
