"""Row 5: a real file system fills up under a real engine, and has space again later.

A tmpfs of 3 MiB, mounted in a mount namespace of its own (`unshare`), so that it is
gone with the process: as root, or as a user who may make user namespaces.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .full_disk import PAYLOAD, RUNS, STEPS
from .row import Control, Counted, Row, Trials, Work

_CPU_PERCENT_MAX = 5.0
_MOUNT_AND_RUN = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$2" -m battery.full_disk "$1" $3'


def run(work: Work) -> Counted:
    shares: list[float] = []
    counted = work.counted(lambda seed, folder: shares.append(_trial(folder)), controls=_controls)
    return replace(counted, figures={"CPU while full, % of a core at worst": max(shares, default=0.0)})


def _fill(folder: Path, *, busy: bool = False) -> dict[str, Any]:
    for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0:
            break
    else:
        raise RuntimeError("this user may mount no file system, so the disk cannot be filled")
    command = [
        *unshare,
        "sh",
        "-c",
        _MOUNT_AND_RUN,
        "sh",
        str(folder),
        sys.executable,
        "busy" if busy else "",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, f"the worker died: {done.stderr[-500:]}"
    return json.loads(done.stdout)


def _trial(folder: Path) -> float:
    seen = _fill(folder)
    assert seen["told"] == "StoreFull", f"a start on a full disk was told {seen['told']}"
    assert not seen["late"], "a start that was refused is there"
    assert seen["results"] == [STEPS * PAYLOAD] * RUNS, f"results: {seen['results']}"
    assert seen["effects"] == seen["keys"] == RUNS * STEPS, f"{seen['effects']} effects, {seen['keys']} keys"
    assert not seen["wrongs"], seen["wrongs"][0]
    assert seen["cpu_percent"] < _CPU_PERCENT_MAX, f"{seen['cpu_percent']:.1f} % of a core while full"
    return seen["cpu_percent"]


def _controls(work: Work) -> Sequence[Control]:
    with work.fresh_folder("control") as folder:
        share = _fill(folder, busy=True)["cpu_percent"]
    return [Control("an engine that does not pause", share > _CPU_PERCENT_MAX, f"{share:.0f} % of a core")]


ROW = Row(
    5,
    "full disk",
    fault="The disk is full while runs take steps; later there is space again.",
    how="A small file system is mounted, filled by the worker itself, and enlarged.",
    holds=[
        "nothing is lost or done twice",
        "who asks for something is told StoreFull, and it leaves no trace",
        "the engine waits, with less than 5 % of a core, and goes on by itself",
    ],
    trials=Trials(push=2, long=10, release=100),
    run=run,
)
