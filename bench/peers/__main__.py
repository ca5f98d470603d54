"""`python -m bench.peers [names…]`: install each peer apart, measure, print one table.

Uses the standard library only. A peer that cannot be installed or does not run
gets a row that says why; the table is always printed, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from .catalogue import PEERS, Peer
from .environment import CHECKOUT, NotInstalled, cache_folder, install
from .limits import file_system, measure_commits_per_second, measure_fdatasync_ms
from .table import Row, draw

_GRACE_SECONDS = 15


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    peers = [peer for peer in PEERS if not options.names or peer.name in options.names]
    cache = cache_folder()
    rows: list[Row] = []
    for peer in peers:
        print(f"{peer.name} …", file=sys.stderr)
        rows += _measure(peer, cache, options)
    about = _about(cache)
    if options.json:
        print(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        print(", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
        print(draw(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    # Not `choices`: argparse of 3.11 refuses an empty list of choices.
    parser.add_argument("names", nargs="*", type=_peer_name, help="peers; all when none is given")
    parser.add_argument("--runs", type=int, default=200, help="runs at once, 10 steps each")
    parser.add_argument("--long-steps", type=int, default=100, help="steps of the sequential run")
    parser.add_argument("--samples", type=int, default=200, help="one-step runs, at most")
    parser.add_argument("--seconds", type=float, default=5, help="time for each figure, about")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one peer, at most")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    return parser


def _peer_name(word: str) -> str:
    names = [peer.name for peer in PEERS]
    if word not in names:
        raise argparse.ArgumentTypeError(f"no peer is called {word!r}. There are: {', '.join(names)}")
    return word


def _measure(peer: Peer, cache: Path, options: argparse.Namespace) -> list[Row]:
    try:
        python = install(peer, cache / peer.name)
    except (NotInstalled, OSError, subprocess.SubprocessError) as error:
        return [Row(peer.name, error=f"cannot be installed: {error}")]
    # In the cache and not in /tmp: that may be memory, where an fsync costs nothing.
    with tempfile.TemporaryDirectory(dir=cache, prefix=f"{peer.name}-data-") as data:
        lines, ended = _run(peer, python, Path(data), options)
    return _rows(peer, lines, ended, log=cache / peer.name / "log")


def _run(
    peer: Peer, python: Path, data: Path, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], str]:
    """Answer with the lines of JSON, and how it ended: empty when well."""
    command = [
        str(python), "-m", peer.module, "--folder", str(data / "peer"), "--runs", str(options.runs),
        "--long-steps", str(options.long_steps), "--samples", str(options.samples),
        "--seconds", str(options.seconds),
    ]  # fmt: skip
    # The caller's own paths and Python settings must not leak into the peer's environment.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = ""
    with (data.parent / peer.name / "log").open("wb") as log:
        # A session of its own: Ctrl-C reaches us alone, and we end the peer in order.
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=options.timeout)
        except subprocess.TimeoutExpired:
            ended = f"stopped after {options.timeout:.0f} s"
            output = _stop(process)
        except BaseException:
            _stop(process)
            raise
    if not ended and process.returncode:
        ended = f"ended with code {process.returncode}"
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return lines, ended


def _stop(process: subprocess.Popen[str]) -> str:
    """Let the peer stop its server; after a while end the whole group that we started."""
    process.terminate()
    try:
        output, _ = process.communicate(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return output


def _rows(peer: Peer, lines: list[dict[str, Any]], ended: str, *, log: Path) -> list[Row]:
    """One row for each variant; one with the error when there is none."""
    rows: dict[str, Row] = {}
    for line in lines:
        row = rows.setdefault(
            line["variant"],
            Row(peer.name, line["variant"], line["version"], line["settings"]),
        )
        if "error" in line:
            row.error = line["error"]
        else:
            row.figures[line["figure"]] = line
    if ended or not rows:
        why = ended or "printed no figure"
        said = log.read_text(errors="replace").strip().splitlines()
        rows["?"] = Row(peer.name, error=f"{why}: {said[-1] if said else 'it said nothing'} (log: {log})")
    return list(rows.values())


def _about(cache: Path) -> dict[str, str]:
    commits = measure_commits_per_second(cache)
    return {
        "Python": platform.python_version(),
        "sqlite3": sqlite3.sqlite_version,
        "cores": str(os.cpu_count()),
        "file system": file_system(cache),
        "raw commit": f"{1_000 / commits:.2f} ms ({commits:,.0f}/s)",
        "fdatasync": f"{measure_fdatasync_ms(cache):.2f} ms",
    }


def _end(_number: int, _frame: object) -> NoReturn:
    raise SystemExit("ended by SIGTERM")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
