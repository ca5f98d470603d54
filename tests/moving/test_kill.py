"""Real processes that are killed while they move: one home at most, and the next one ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.errors import StoreMoved
from perdure.moving import abandon, move
from perdure.moving.marking import opened
from tests.moving.conftest import RUNS, fill, homes, ids_in

pytestmark = pytest.mark.slow

ALL = sorted(f"run-{n}" for n in range(RUNS))
STAGES = {
    "read": (None, None),
    "closing": ("moving", None),
    "closed": ("moving", "arriving"),
    "copy": ("moving", "arriving"),
    "compare": ("moving", "arriving"),
    "left": ("moved", "arriving"),
    "arrived": ("moved", "arrived"),
}
"""What the marks say after each step."""


def kill_at(step: str, urls: tuple[str, str]) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, "-m", "tests.moving.program", *urls, step]
    killed = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def stages(urls: tuple[str, str]) -> tuple[str | None, ...]:
    found: list[str | None] = []
    for url in urls:
        with opened(url, create=False) as store:
            mark = store.move_mark()
            found.append(None if mark is None else mark.stage)
    return tuple(found)


@pytest.mark.parametrize("step", STAGES)
def test_a_process_killed_at_any_step_leaves_one_home_at_most_and_the_next_ends_the_move(
    urls: tuple[str, str], step: str
) -> None:
    fill(urls[0])
    kill_at(step, urls)
    assert stages(urls) == STAGES[step]
    assert len(homes(*urls)) == (1 if step in ("read", "arrived") else 0)

    moved = move(*urls)

    assert homes(*urls) == [urls[1]]
    assert ids_in(urls[1]) == ALL
    assert moved.was_done == (step in ("left", "arrived"))
    assert stages(urls) == ("moved", "arrived")


@pytest.mark.parametrize("step", ["closing", "copy", "left", "arrived"])
def test_a_process_killed_before_the_source_is_given_up_is_undone_and_after_that_not(
    urls: tuple[str, str], step: str
) -> None:
    fill(urls[0])
    kill_at(step, urls)

    if step in ("left", "arrived"):
        with pytest.raises(StoreMoved, match="cannot be abandoned"):
            abandon(*urls)
        return
    undone = abandon(*urls)

    assert undone.reopened
    assert undone.cleared == (step == "copy")
    assert homes(*urls) == [urls[0]]
    assert ids_in(urls[0]) == ALL


def test_what_has_arrived_before_a_kill_is_not_copied_again(urls: tuple[str, str]) -> None:
    fill(urls[0])
    kill_at("copy", urls)
    copied: list[int] = []

    move(*urls, progress=lambda progress: progress.step == "copy" and copied.append(progress.done))

    assert max(copied) == RUNS - 500
