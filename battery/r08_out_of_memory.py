"""Row 8: there is no memory left: in a step, and for the whole worker."""

from __future__ import annotations

import logging
import resource
from collections.abc import Sequence
from pathlib import Path

from perdure import Engine, Retry, Step, StepFailed, step, workflow

from .lives import Life
from .row import Control, Row, Trials, Work

_MIB = 1 << 20
_ROOM_MIB = 300
"""What a worker may have beside what it has when it begins."""
_TOO_MUCH_MIB = 1_000
_HAD_ALL = "the step had all the memory that it asked for"


async def _eat_on_the_loop(size: int) -> int:
    return len(bytearray(size * _MIB))


def _eat(size: int) -> int:
    return len(bytearray(size * _MIB))


def _eat_bit_by_bit(size: int) -> int:
    return len([bytes(4_096) for _ in range(size * 256)])


_TWICE = Retry(attempts=2, delay=0)
EATERS = {
    "on the loop": Step(_eat_on_the_loop, name="eats on the loop", retry=_TWICE),
    "on a thread": Step(_eat, name="eats on a thread", retry=_TWICE),
    "bit by bit": Step(_eat_bit_by_bit, name="eats bit by bit", retry=_TWICE),
    "apart": Step(_eat, name="eats apart", retry=_TWICE, on="process"),
}


@step
async def well(number: int) -> int:
    return number


@workflow
async def stay_well(number: int) -> int:
    return await well(number) + await well(number)


@workflow
async def eat(where: str, size: int) -> str:
    try:
        await EATERS[where](size)
    except StepFailed as error:
        return type(error.__cause__ or error).__name__ + ":" + str(error)[:80]
    return "enough"


def _trial(seed: int, folder: Path) -> None:
    _starve(list(EATERS)[seed % len(EATERS)], folder, limited=True)


def _starve(where: str, folder: Path, *, limited: bool) -> None:
    life = Life(lambda: _live(where, folder, limited=limited), errors=folder / "errors")
    assert life.end(patience_s=30), "the worker died"


async def _live(where: str, folder: Path, *, limited: bool) -> None:
    logging.getLogger("perdure").setLevel(logging.CRITICAL)
    async with Engine(f"sqlite:///{folder / 'runs.db'}") as engine:
        assert await engine.run(stay_well(1)) == 2
        if limited:
            room = _address_space() + _ROOM_MIB * _MIB
            resource.setrlimit(resource.RLIMIT_AS, (room, room))
        beside = [await engine.start(stay_well(number)) for number in range(5)]
        ended = await engine.run(eat(where, _TOO_MUCH_MIB), id="eats")
        assert ended != "enough", _HAD_ALL
        assert [await run.result() for run in beside] == [0, 2, 4, 6, 8]
        assert await engine.run(stay_well(4)) == 8


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _controls(work: Work) -> Sequence[Control]:
    """Without a limit the same step must get what it asks for: else the row makes no shortage."""
    seen = "the step failed all the same"
    with work.fresh_folder() as folder:
        try:
            _starve("on a thread", folder, limited=False)
        except AssertionError as error:
            if _HAD_ALL in str(error):
                seen = _HAD_ALL
    return [Control("no limit is set", seen == _HAD_ALL, seen)]


ROW = Row(
    number=8,
    name="out of memory",
    fault="A step asks for more memory than there is: at once or bit by bit.",
    how=f"A process that may have {_ROOM_MIB} MiB more (RLIMIT_AS), on the loop, on a thread and in a "
    "process of its own.",
    holds=(
        "the step fails with MemoryError, and the workflow hears of it",
        "the worker and its other runs go on",
    ),
    trials=Trials(push=8, long=200, release=2_000),
    run=lambda work: work.counted(_trial, controls=_controls),
)
