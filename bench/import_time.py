"""How long `import perdure` takes in a new interpreter, compiled files in place.

Measured inside that interpreter, so that its own start does not count.

Limit: the import of asyncio, msgspec and apsw, without which there is nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from .measure import Figure, Work, beside

NEEDED = "asyncio, apsw, msgspec"


def measure(work: Work) -> Iterator[Figure]:
    _import_ms("perdure")  # compiles
    pairs = [beside(lambda: _import_ms(NEEDED), lambda: _import_ms("perdure")) for _ in work.repeats(15)]
    values, limits = zip(*pairs, strict=True)
    yield Figure("import perdure", "ms", values, f"import {NEEDED}", limits, target=80)


def _import_ms(modules: str) -> float:
    program = f"from time import perf_counter as now; began = now(); import {modules}; print(now() - began)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(answer.stdout) * 1_000
