"""kill -9 while events are handled: none is lost or overtakes another of its key, and a killer is parked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from perdure.core.events import DeadFilter, DeadKind
from perdure.core.positions import place_at
from perdure.stores.sqlite import SqliteStore
from tests.crash.consumer import EVENTS, key_of, note
from tests.streams.conservation import accounts

pytestmark = pytest.mark.slow

LIVES_MAX = 30


class Witness:
    """Runs the program life after life, and looks at what it has done after each."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self._store = folder / "runs.db"
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self._checkout = checkout

    def live(self, *death: object) -> bool:
        """One life. True when the program came to its end, False when it was killed."""
        command = [sys.executable, "-m", "tests.crash.consumer", self._store, self._ledger, *map(str, death)]
        path = os.pathsep.join([str(self._checkout), *sys.path])
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=self._checkout,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        assert answer.returncode in (0, -signal.SIGKILL), answer.stderr
        return answer.returncode == 0

    def handled(self) -> list[tuple[int, str, int]]:
        """Position, key and number of what was handled, in the order in which it was."""
        lines = [line.split() for line in self._ledger.read_text().splitlines()]
        return [(place_at(position), key, int(number)) for position, key, number in lines]

    def look(self) -> dict[int, DeadKind]:
        """Raise AssertionError if anything is wrong. Gives what is parked, by number."""
        store = SqliteStore(self._store)
        assert list(store.check()) == []
        handled = self.handled()
        row = [one for one in store.streams.subscriptions() if one.name == "note"]
        parked: dict[int, DeadKind] = {}
        if row:
            accounts(store, note, handled={position for position, _, _ in handled})
            dead = store.streams.dead.events(row[0].number, DeadFilter(), limit=1_000)
            parked = {one.position - 1: DeadKind(one.kind) for one in dead}
        store.close()
        by_key = defaultdict[str, list[int]](list)
        for _, key, number in handled:
            by_key[key].append(number)
        for numbers in by_key.values():
            first_times = list(dict.fromkeys(numbers))
            assert first_times == sorted(first_times), f"out of order: {numbers}"
        return parked


@pytest.fixture
def witness(tmp_path: Path, checkout: Path) -> Witness:
    return Witness(tmp_path, checkout)


@pytest.mark.parametrize(
    "death",
    [(), ("before commit", 4), ("after commit", 6), ("effect", 20)],
    ids=lambda death: " ".join(map(str, death)),
)
def test_what_kills_its_worker_is_parked_and_all_else_is_handled(
    witness: Witness, death: tuple[object, ...]
) -> None:
    lives = 1

    ended = witness.live(*death)
    while not ended and lives < LIVES_MAX:
        witness.look()
        lives += 1
        ended = witness.live()

    parked = witness.look()
    assert ended
    assert lives <= 4 + bool(death)
    assert parked == {
        7: DeadKind.FAILED, 47: DeadKind.BEHIND, 87: DeadKind.BEHIND,
        30: DeadKind.CRASHED, 60: DeadKind.BEHIND,
    }  # fmt: skip
    times = Counter(number for _, _, number in witness.handled())
    assert set(times) == {number for number in range(EVENTS) if key_of(number) not in ("bad", "killer")}
    assert max(times.values()) <= lives
