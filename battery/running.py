"""Runs one row in a process of its own, so that one that crashes or hangs fails alone."""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from .page import Result, result_of
from .row import Counted, Failure, Row, Tier, Work, describe

_HERE = Path(__file__).resolve().parent
_PATIENCE_S: dict[Tier, float] = {"push": 300.0, "long": 4 * 3_600.0, "release": 24 * 3_600.0}
"""After that a row counts as hung: it says where it stands, and dies."""


def row_modules() -> dict[int, str]:
    """The number of each row, and the module that has it."""
    paths = sorted(_HERE.glob("r[0-9][0-9]_*.py"))
    return {int(path.stem[1:3]): f"battery.{path.stem}" for path in paths}


def run_row(module: str, tier: Tier, *, seed: int, trials: int | None) -> Result:
    """Run a row, and judge it. `trials`: how often to try; None: as often as the tier says."""
    row: Row = importlib.import_module(module).ROW
    print(f"{row.number} {row.name} …", file=sys.stderr, flush=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="perdure-battery-") as name:
        folder = Path(name)
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                counted = pool.submit(run_here, module, tier, folder, seed=seed, trials=trials).result()
        except BrokenProcessPool:
            _end_servers(folder)
            counted = Counted(0, [Failure(seed, "The row's process died, or hung; what it said is above.")])
    return result_of(row, tier, counted, seed=seed, seconds=time.perf_counter() - began, whole=trials is None)


def run_here(module: str, tier: Tier, folder: Path, *, seed: int, trials: int | None) -> Counted:
    """Run a row in this process, and end the process when that takes too long."""
    faulthandler.dump_traceback_later(_PATIENCE_S[tier if trials is None else "release"], exit=True)
    if trials is None:  # who repeats one trial wants to hear what the engine says
        logging.getLogger("perdure").setLevel(logging.CRITICAL)
    row: Row = importlib.import_module(module).ROW
    work = Work(row, tier, seed=seed, trials=trials, folder=folder)
    try:
        return row.run(work)
    except Exception as error:  # the row itself is broken: that is no pass
        failure = Failure(seed, describe(error))
        work.report(failure)
        return Counted(0, [failure])
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_servers(folder: Path) -> None:
    """End those that a row has left whose process died."""
    for mark in folder.rglob("postmaster.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(mark.read_text().split()[0]), signal.SIGQUIT)
