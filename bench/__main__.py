"""`python -m bench [names…]`: measure, and print one table: figure, limit in the same run, ratio, target.

Each benchmark runs in a process of its own. One that breaks says why below the
table; the others are printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .measure import Figure, Work, apart, commit_seconds, measure_one, percentile, sync_seconds
from .report import as_json, describe_machine, draw, fill

CHECKOUT = Path(__file__).resolve().parent.parent
PAGE = CHECKOUT / "docs" / "benchmarks.md"
NAMES = (
    "throughput", "sequential", "start_to_result", "sleepers", "recovery", "restart",
    "replay", "explore", "crash_everywhere", "busy_loop", "payloads", "growth", "import_time", "check",
    "deploy_check", "streams", "poison", "postgres", "claims", "failover", "crowded",
)  # fmt: skip
"""In the order of the table; each is a module beside this one."""


@dataclass(slots=True)
class _Results:
    """What came of all benchmarks."""

    machine: dict[str, str]
    figures: list[Figure] = field(default_factory=list[Figure])
    broken: dict[str, str] = field(default_factory=dict[str, str])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.peers:
        if not options.write_docs:
            parser.error("--peers goes with --write-docs; `python -m bench.peers` only prints.")
        _write_docs("peers", _measure_peers())
        return 0
    if options.write_docs and (options.names or options.quick):
        parser.error("--write-docs takes all benchmarks in full, so give it no names and not --quick.")
    results = _measure(options.names or NAMES, quick=options.quick)
    if options.json:
        print(json.dumps({
            "machine": results.machine, "quick": options.quick,
            "figures": [as_json(figure) for figure in results.figures], "broken": results.broken,
        }, indent=2))  # fmt: skip
    else:
        print(_text(results, markdown=options.markdown))
    if options.write_docs and not results.broken:
        _write_docs("figures", _text(results, markdown=True))
    return 1 if results.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # Not `choices`: argparse of 3.11 refuses an empty list of choices.
    parser.add_argument("names", nargs="*", type=_name, help=f"of {', '.join(NAMES)}; all when none is given")
    flags = {
        "--quick": "tiny sizes, once: shows that it works, and no more",
        "--json": "print all that was measured as JSON",
        "--markdown": "print the table as Markdown",
        "--write-docs": "write the table into docs/benchmarks.md too",
        "--peers": "with --write-docs: measure the other systems instead, and write theirs",
    }
    for flag, says in flags.items():
        parser.add_argument(flag, action="store_true", help=says)
    return parser


def _name(word: str) -> str:
    if word not in NAMES:
        raise argparse.ArgumentTypeError(f"no benchmark is called {word!r}. There are: {', '.join(NAMES)}")
    return word


def _measure(names: Sequence[str], *, quick: bool) -> _Results:
    cache = Path(os.environ.get("PERDURE_BENCH_CACHE") or CHECKOUT / ".bench").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    results = _Results(describe_machine(cache))
    # In the cache and not in /tmp: that may be memory, where an fsync costs nothing.
    with tempfile.TemporaryDirectory(dir=cache, prefix="figures-") as folder:
        for name in names:
            print(f"{name} …", file=sys.stderr)
            inside = Path(folder) / name
            inside.mkdir()
            try:
                results.figures += apart(measure_one, name, inside, quick=quick)
            except Exception as error:
                results.broken[name] = f"{type(error).__name__}: {error}"
        results.machine |= _disk(Work(Path(folder), quick=quick))
    return results


def _disk(work: Work) -> dict[str, str]:
    times = work.size(500, quick=20)
    return {
        "fdatasync": f"{percentile(sync_seconds(work, times=times), 0.5) * 1_000:.2f} ms",
        "commit of one row": f"{percentile(commit_seconds(work, times=times), 0.5) * 1_000:.2f} ms",
    }


def _text(results: _Results, *, markdown: bool) -> str:
    machine = " · ".join(f"{name} {value}" for name, value in results.machine.items())
    broken = [f"{name} did not run: {why}" for name, why in results.broken.items()]
    return "\n\n".join([machine, draw(results.figures, markdown=markdown), *broken])


def _measure_peers() -> str:
    answer = subprocess.run(
        [sys.executable, "-m", "bench.peers"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True
    )
    return answer.stdout


def _write_docs(name: str, text: str) -> None:
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), name, text), encoding="utf-8")
    print(f"Written into {PAGE.relative_to(CHECKOUT)}.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
