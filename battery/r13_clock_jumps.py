"""Row 13: the machine's clock is set, forwards and backwards, while runs sleep."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from perdure.core.records import Record
from perdure.stores.base import RunQuery
from perdure.stores.sqlite import SqliteStore

from .clocked import NAPS, RUNS
from .lives import Notes
from .planted import first_caught
from .row import Control, Row, Trials, Work, chance

_JUMPS_S = (-259_200.0, -3_600.0, -0.01, -0.001, 0.5, 3_600.0, 259_200.0)
_JUMPS = 6
_PATIENCE_S = 30.0
_SEEDS_FOR_A_CONTROL = 5
_CHECKOUT = Path(__file__).resolve().parent.parent


def _library() -> Path:
    spec = find_spec("libfaketime")
    assert spec is not None and spec.origin is not None, "install libfaketime (the extra `test` has it)"  # noqa: PT018
    return Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


def _jump(seed: int, folder: Path, *, planted: bool) -> None:
    draw = chance(seed)
    setting = folder / "offset"
    _set(setting, 0.0)
    ledger = Notes(folder / "ledger")
    store = folder / "runs.db"
    command = [sys.executable, "-m", "battery.clocked", store, ledger.path, "planted" if planted else "-"]
    with subprocess.Popen(
        command, env=_environment(setting), cwd=_CHECKOUT, stderr=subprocess.PIPE
    ) as program:
        try:
            latest = offset = 0.0
            while not ledger.lines() and program.poll() is None:
                time.sleep(0.01)
            for _ in range(_JUMPS):
                offset += draw.choice(_JUMPS_S)
                latest = max(latest, offset)
                _set(setting, offset)
                time.sleep(draw.random() * 0.1)
            # A sleep ends at a time of the day: a clock that was set back must be put right for it to end.
            _set(setting, latest)
            _, said = program.communicate(timeout=_PATIENCE_S)
        finally:
            program.kill()
    assert program.returncode == 0, f"the worker failed: {said.decode()[-500:]}"
    _judge(store, ledger)
    ledger.close()


def _set(setting: Path, offset_s: float) -> None:
    new = setting.with_suffix(".new")
    new.write_text(f"{offset_s:+f}s\n", encoding="ascii")
    new.replace(setting)


def _environment(setting: Path) -> dict[str, str]:
    return {
        **os.environ,
        "LD_PRELOAD": str(_library()),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
        "NO_FAKE_STAT": "1",
    }


def _judge(path: Path, ledger: Notes) -> None:
    naps = [line for line in ledger.lines() if line[0] != "ready"]
    assert len(naps) == RUNS * len(NAPS), f"I9: {len(naps)} sleeps ended, of {RUNS * len(NAPS)}"
    early = [(asked, took) for _, asked, took in naps if took < asked - 0.001]
    assert not early, f"I9: sleeps were over too early (asked, took): {early}"
    store = SqliteStore(path)
    try:
        for run in store.list_runs(RunQuery()):
            _judge_journal(store.records(run.number))
    finally:
        store.close()


def _judge_journal(records: Sequence[Record]) -> None:
    times = [record.at_ms for record in records]
    assert times == sorted(times), f"I9: the time of a journal goes back: {times}"


def _controls(work: Work) -> Sequence[Control]:
    planted = "a record has whatever time the clock shows"
    return [first_caught(work, planted, partial(_jump, planted=True), seeds=_SEEDS_FOR_A_CONTROL)]


ROW = Row(
    number=13,
    name="clock jumps",
    fault="The machine's clock is set while runs sleep: by hours, by days, by a millisecond, both ways.",
    how="A process under libfaketime, whose monotonic clock goes on; six jumps, then it is right again.",
    holds=(
        "no sleep is over before its time, by the run's own clock",
        "none is lost",
        "the times of a journal never go back",
    ),
    trials=Trials(push=8, long=100, release=10_000),
    run=lambda work: work.counted(
        lambda seed, folder: _jump(seed, folder, planted=False), controls=_controls
    ),
)
