"""`python -m battery [ROW …] --tier push|long|release`: break things, and count what is lost.

The exit code is 0 when every row that ran held, and all its controls were caught.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .page import DATA, PAGE, Result, as_json, draw, fill_page, merge
from .row import TIERS
from .running import row_modules, run_row


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    modules = row_modules()
    unknown = [number for number in options.rows if number not in modules]
    if unknown:
        parser.error(f"there is no row {unknown[0]}. There are: {', '.join(map(str, modules))}.")
    if options.trials is not None and options.write_docs:
        parser.error("--write-docs takes rows as their tier wants them, so give it no --trials.")
    results: list[Result] = []
    run = partial(run_row, tier=options.tier, seed=options.seed, trials=options.trials)
    with ThreadPoolExecutor(options.at_once) as rows:  # each runs in a process of its own
        for result in rows.map(run, [modules[number] for number in options.rows or modules]):
            results.append(result)
            print(draw(result), flush=True)
    held = all(result["held"] for result in results)
    print("All held." if held else "Not all held.", f"Rows: {len(results)}.")
    if options.json:
        Path(options.json).write_text(as_json(results), encoding="utf-8")
    if options.write_docs and held:
        _write_docs(results)
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/battery", description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help="only these; all when none is given")
    parser.add_argument("--tier", choices=TIERS, default="push", help="how often to try; default: push")
    parser.add_argument("--seed", type=int, default=0, help="the first trial's seed; the others count on")
    parser.add_argument("--trials", type=int, help="so many trials of each row, and no controls")
    parser.add_argument(
        "--at-once",
        type=int,
        choices=range(1, 17),
        default=1,
        metavar="ROWS",
        help="so many rows side by side; their times say less",
    )
    parser.add_argument("--json", metavar="FILE", help="write all that was counted there")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="put the results into docs/reliability.json and .md, if all rows held",
    )
    return parser


def _write_docs(results: Sequence[Result]) -> None:
    known: list[Result] = json.loads(DATA.read_text(encoding="utf-8"))["rows"] if DATA.exists() else []
    merged = merge(known, results)
    DATA.write_text(as_json(merged), encoding="utf-8")
    PAGE.write_text(fill_page(PAGE.read_text(encoding="utf-8"), merged), encoding="utf-8")
    print("Written into docs/reliability.json and docs/reliability.md.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
