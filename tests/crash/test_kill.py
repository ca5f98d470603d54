"""kill -9, at named moments and at seeded ones: nothing recorded is done again, and all comes right.

After each death the store is looked at: it must be whole, and what it has
recorded must never be done again. What was interrupted may be done again, with
the idempotency key that it had.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from perdure.core.records import Kind
from perdure.stores.base import RunQuery
from perdure.stores.sqlite import SqliteStore

pytestmark = pytest.mark.slow

LIVES_MAX = 40
MOMENTS = [
    *(("before commit", number) for number in (1, 3, 8)),
    *(("after commit", number) for number in (1, 2, 5, 12)),
    *(("step", number) for number in (1, 20)),
    *(("effect", number) for number in (1, 10, 30)),
]


class Witness:
    """Runs the program life after life, and watches what it does to the world."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self._store = folder / "runs.db"
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self._checkout = checkout
        self._done: set[tuple[str, str]] = set()
        self._lines_seen = 0

    def live(self, *death: object) -> bool:
        """One life. True when the program came to its end, False when it was killed."""
        path = os.pathsep.join([str(self._checkout), *sys.path])
        command = [sys.executable, "-m", "tests.crash.program", self._store, self._ledger, *map(str, death)]
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=self._checkout,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        assert answer.returncode in (0, -signal.SIGKILL), answer.stderr
        self._look()
        return answer.returncode == 0

    def _look(self) -> None:
        """Raise AssertionError if what was recorded before was done again, or the store is hurt."""
        lines = self.lines()
        again = [line for line in lines[self._lines_seen :] if (line[0], line[1]) in self._done]
        assert again == []
        self._lines_seen = len(lines)
        if self._store.exists():
            store = SqliteStore(self._store)
            assert list(store.check()) == []
            for run in store.list_runs(RunQuery(limit=1_000)):
                steps = [record.key for record in store.records(run.number) if record.kind == Kind.STEP]
                self._done.update((run.id, key) for key in steps)
            store.close()

    def lines(self) -> list[tuple[str, str, str, str]]:
        """What was done: run, key of the call, idempotency key, effect."""
        return [tuple(json.loads(line)) for line in self._ledger.read_text().splitlines()]

    def assert_all_is_right(self) -> None:
        """Each call had one idempotency key, no two calls shared one, and every effect came about."""
        keys = defaultdict[tuple[str, str], set[str]](set)
        for run, call, key, _ in self.lines():
            keys[run, call].add(key)
        assert [call for call, found in keys.items() if len(found) > 1] == []
        assert len({key for found in keys.values() for key in found}) == len(keys)
        effects = {effect for *_, effect in self.lines()}
        expected = {f"{what} {order}" for what in ("pack", "flaky") for order in range(8)}
        expected |= {f"pay {order} {part}" for order in range(8) for part in range(3)} | {"give back 8"}
        assert expected <= effects <= expected | {"pay 8 9"}


@pytest.fixture
def witness(tmp_path: Path, checkout: Path) -> Witness:
    return Witness(tmp_path, checkout)


@pytest.mark.parametrize(("event", "number"), MOMENTS)
def test_a_program_that_is_killed_once_goes_on_where_it_was(
    witness: Witness, event: str, number: int
) -> None:
    killed = not witness.live(event, number)

    finished = witness.live()

    assert killed
    assert finished
    witness.assert_all_is_right()


@pytest.mark.parametrize("seed", [1])
def test_a_program_that_is_killed_again_and_again_comes_to_its_end(witness: Witness, seed: int) -> None:
    draw = random.Random(seed)

    lives = 1
    while lives < LIVES_MAX and not witness.live("anything", draw.randint(8, 60)):
        lives += 1
    finished = lives < LIVES_MAX or witness.live()

    assert finished
    assert lives > 2
    witness.assert_all_is_right()
