"""Starts a victim, kills it with `kill -9` half way, and starts the worker that goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def start(verb: str, path: Path, runs: int) -> subprocess.Popen[str]:
    """Start a worker; see `victim`."""
    command = [sys.executable, "-m", "bench.victim", verb, str(path), str(runs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_line(worker: subprocess.Popen[str]) -> str:
    """What the worker says next. Raises RuntimeError when it ended instead."""
    assert worker.stdout is not None
    line = worker.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"the worker ended with code {worker.wait()} before it said what was expected")
    return line


def bring_half_way(path: Path, runs: int) -> subprocess.Popen[str]:
    """A worker whose runs all stand in a step that will not return."""
    worker = start("begin", path, runs)
    while read_line(worker) != "held":
        pass
    return worker


def kill(worker: subprocess.Popen[str]) -> None:
    """End it as a power switch would."""
    worker.kill()
    worker.communicate()
