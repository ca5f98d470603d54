"""A move that is broken off anywhere leaves at most one home, and goes on or is undone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import StoreMoved
from perdure.moving import abandon_between, move, move_between
from perdure.moving.marking import opened
from perdure.stores.base import MoveMark, MovePage, RunQuery, Store
from tests.moving.conftest import RUNS, break_off, fill, homes, ids_in

pytestmark = pytest.mark.slow

ALL = sorted(f"run-{n}" for n in range(RUNS))


class Killed(BaseException):
    """This process is no more."""


class Fuse:
    """Kills before or after a write, when so many such moments have passed."""

    def __init__(self, moments: int) -> None:
        self.left = moments

    def burn(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


class Mortal:
    """A real store, whose user dies by a fuse."""

    def __init__(self, store: Store, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def mark_move(self, before: MoveMark | None, after: MoveMark | None, *, now_ms: int) -> None:
        self._fuse.burn()
        self._store.mark_move(before, after, now_ms=now_ms)
        self._fuse.burn()

    def import_page(self, mark: MoveMark, page: MovePage) -> None:
        self._fuse.burn()
        self._store.import_page(mark, page)
        self._fuse.burn()


class Place:
    """A source that is filled, and where its runs may go."""

    def __init__(self, folder: Path, template: Path) -> None:
        folder.mkdir()
        shutil.copy(template, folder / "from.db")
        self.source, self.target = (f"sqlite:///{folder}/{name}.db" for name in ("from", "to"))

    def do(self, work: Callable[[Store, Store], object], moments: int = -1) -> bool:
        """Move or abandon, and perhaps die at it. Whether it came to its end."""
        with opened(self.source, create=False) as source, opened(self.target, create=True) as target:
            fuse = Fuse(moments)
            try:
                work(Mortal(source, fuse), Mortal(target, fuse))  # type: ignore[arg-type]
            except Killed:
                return False
            return True

    def homes(self) -> list[str]:
        return homes(self.source, self.target)

    def is_given_up(self) -> bool:
        with opened(self.source, create=False) as source:
            mark = source.move_mark()
            return mark is not None and mark.stage == "moved"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "from.db"
    fill(f"sqlite:///{path}")
    return path


@pytest.fixture
def place(tmp_path: Path, template: Path) -> Callable[[], Place]:
    """Gives a new place each time."""
    numbers = count()
    return lambda: Place(tmp_path / str(next(numbers)), template)


def moments_of(place: Place, work: Callable[[Store, Store], object]) -> int:
    """How many moments there are to die at."""
    fuse = Fuse(1 << 30)
    with opened(place.source, create=False) as source, opened(place.target, create=True) as target:
        work(Mortal(source, fuse), Mortal(target, fuse))  # type: ignore[arg-type]
    return (1 << 30) - fuse.left


def test_a_move_that_is_killed_anywhere_is_ended_by_the_same_move(place: Callable[[], Place]) -> None:
    moments = moments_of(place(), move_between)
    assert moments >= 14  # four marks and three pages, before and after each

    for moment in range(moments):
        killed = place()
        assert not killed.do(move_between, moment)
        assert len(killed.homes()) <= 1, moment

        assert killed.do(move_between)

        assert killed.homes() == [killed.target], moment
        assert ids_in(killed.target) == ALL
        assert ids_in(killed.source) is None


def test_a_move_that_is_killed_before_the_source_is_given_up_can_be_undone(
    place: Callable[[], Place],
) -> None:
    undone = 0
    for moment in range(moments_of(place(), move_between)):
        killed = place()
        killed.do(move_between, moment)

        if killed.is_given_up():
            with pytest.raises(StoreMoved, match="cannot be abandoned"):
                killed.do(abandon_between)
            assert len(killed.homes()) <= 1
            continue
        killed.do(abandon_between)

        undone += 1
        assert killed.homes() == [killed.source], moment
        assert ids_in(killed.source) == ALL
        assert ids_in(killed.target) == []
    assert undone >= 8


def test_what_is_undone_can_be_moved_again_also_if_undoing_it_was_killed(
    place: Callable[[], Place],
) -> None:
    for moment in range(4):
        killed = place()
        killed.do(move_between, 7)
        assert not killed.do(abandon_between, moment)
        assert len(killed.homes()) <= 1

        killed.do(move_between)

        assert killed.homes() == [killed.target]
        assert ids_in(killed.target) == ALL


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_killed_there_is_one_home_in_the_end(place: Callable[[], Place], seed: int) -> None:
    chance = random.Random(seed)
    killed = place()

    for _ in range(8):
        given_up = killed.is_given_up()
        work: Callable[[Store, Store], object] = chance.choice([move_between, abandon_between])
        if not (given_up and work is abandon_between):
            killed.do(work, chance.randrange(16))
        assert len(killed.homes()) <= 1
    killed.do(move_between)

    assert killed.homes() == [killed.target]
    assert ids_in(killed.target) == ALL


def test_of_two_processes_with_the_same_move_the_later_one_has_it(urls: tuple[str, str]) -> None:
    fill(urls[0])
    moved: list[object] = []

    def come_second(progress: Any) -> None:
        if progress.step == "copy" and not moved:
            moved.append(move(*urls))

    with pytest.raises(StoreMoved):
        move(*urls, progress=come_second)

    assert len(moved) == 1
    assert homes(*urls) == [urls[1]]
    assert ids_in(urls[1]) == ALL


@pytest.mark.parametrize("step", ["closing", "closed", "copy", "compare"])
def test_a_process_that_was_overtaken_writes_nothing_more_even_if_the_later_one_stopped(
    urls: tuple[str, str], step: str
) -> None:
    fill(urls[0])
    overtaken: list[int] = []

    def overtake(progress: Any) -> None:
        if progress.step == step and not overtaken:
            overtaken.append(progress.done)
            break_off(urls, at="closed")

    with pytest.raises(StoreMoved, match="in other hands"):
        move(*urls, progress=overtake)

    assert homes(*urls) == []
    with opened(urls[1], create=False) as target:
        rows = target.list_runs(RunQuery(limit=RUNS))
    assert len(rows) == {"closing": 0, "closed": 0, "copy": 500, "compare": RUNS}[step]


@pytest.mark.parametrize("step", ["closed", "copy", "compare"])
def test_a_move_that_is_undone_by_somebody_else_stops(urls: tuple[str, str], step: str) -> None:
    from perdure.moving import abandon

    fill(urls[0])

    def undo(progress: Any) -> None:
        if progress.step == step:
            abandon(*urls)

    with pytest.raises(StoreMoved, match="other hands"):
        move(*urls, progress=undo)

    assert homes(*urls) == [urls[0]]
    assert ids_in(urls[0]) == ALL
    assert ids_in(urls[1]) == []


@pytest.mark.parametrize("moment", range(5))
def test_undoing_that_is_killed_beside_a_move_that_goes_on_leaves_a_home(
    place: Callable[[], Place], moment: int
) -> None:
    both = place()

    def undo(progress: Any) -> None:
        if progress.step == "compare" and progress.done == RUNS:
            both.do(abandon_between, moment)

    with suppress(StoreMoved):
        move(both.source, both.target, progress=undo)

    if not both.homes():
        both.do(move_between)
    assert len(both.homes()) == 1
    assert ids_in(both.homes()[0]) == ALL
