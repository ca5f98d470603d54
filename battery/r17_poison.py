"""Row 17: steps that raise, hang, crash, never end or end the process, beside runs that are well."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from perdure import Engine, Retry, Run, RunParked, Step, step, workflow
from perdure.runtime.driver import CRASHES_BEFORE_PARKING

from . import poisons
from .lives import FAILED, Life
from .planted import caught_by
from .row import Control, Row, Trials, Work

_ONCE = Retry(attempts=1)
_TWICE = Retry(attempts=2, delay=0)
_LIMIT_S = 0.4
_HEALTHY = 60
_SLOWER_MAX = 2.0
_DEATHS_MAX = CRASHES_BEFORE_PARKING + 1
"""One more: a death right after a start is nobody's, since the run may never have begun."""
_NOISE_S = 0.01
"""Below this a latency is the machine's, and not the engine's."""
_TRIES = 3


async def _raise_on_the_loop() -> None:
    poisons.fail()


async def _recurse_on_the_loop() -> None:
    poisons.recurse()


async def _exit_on_the_loop() -> None:
    poisons.leave()


async def _hang_on_the_loop() -> None:
    await asyncio.Event().wait()


# Each dies, or not, where it runs: on the loop, on a thread, in a process of its own.
POISON: dict[str, Step[[], None]] = {
    "raises": Step(_raise_on_the_loop, name="raises", retry=_TWICE),
    "recurses": Step(_recurse_on_the_loop, name="recurses", retry=_TWICE),
    "exits": Step(_exit_on_the_loop, name="exits", retry=_TWICE),
    "hangs": Step(_hang_on_the_loop, name="hangs", retry=_ONCE, timeout=_LIMIT_S),
    "raises on a thread": Step(poisons.fail, name="raises on a thread", retry=_TWICE),
    "recurses on a thread": Step(poisons.recurse, name="recurses on a thread", retry=_TWICE),
    "exits on a thread": Step(poisons.leave, name="exits on a thread", retry=_TWICE),
    "hangs on a thread": Step(poisons.hang, name="hangs on a thread", retry=_ONCE, timeout=_LIMIT_S),
    "raises apart": Step(poisons.fail, name="raises apart", retry=_TWICE, on="process"),
    "recurses apart": Step(poisons.recurse, name="recurses apart", retry=_TWICE, on="process"),
    "exits apart": Step(poisons.leave, name="exits apart", retry=_TWICE, on="process"),
    "exits at once apart": Step(
        poisons.leave_at_once, name="exits at once apart", retry=_TWICE, on="process"
    ),
    "crashes apart": Step(poisons.crash, name="crashes apart", retry=_TWICE, on="process"),
    "is killed apart": Step(poisons.be_killed, name="is killed apart", retry=_TWICE, on="process"),
    "spins apart": Step(poisons.spin, name="spins apart", retry=_ONCE, timeout=_LIMIT_S, on="process"),
    "hangs apart": Step(poisons.hang, name="hangs apart", retry=_ONCE, timeout=_LIMIT_S, on="process"),
}
DEADLY: dict[str, Step[[], None]] = {
    "exits at once": Step(poisons.leave_at_once, name="exits at once"),
    "crashes": Step(poisons.crash, name="crashes"),
    "is killed": Step(poisons.be_killed, name="is killed"),
}
"""These take the worker with them: they run on one of its threads."""


@step
async def well(number: int) -> int:
    return number


@workflow
async def stay_well() -> int:
    return sum([await well(number) for number in range(3)])


@workflow
async def drink(poison: str) -> None:
    await (POISON | DEADLY)[poison]()


def _trial(seed: int, folder: Path) -> None:
    names = [*POISON, *DEADLY]
    name = names[seed % len(names)]
    if name in DEADLY:
        _die_of(name, folder)
    else:
        asyncio.run(_live_beside(name, folder))


async def _live_beside(name: str, folder: Path) -> None:
    """Healthy runs are as quick as ever, and the poisoned one parks."""
    async with Engine(f"sqlite:///{folder / 'runs.db'}") as engine:
        await _slowest_of_ten(engine)
        before = await _slowest_of_ten(engine)
        poisoned = await engine.start(drink(name), id="poisoned")
        limit = max(_SLOWER_MAX * before, _NOISE_S)
        beside = await _slowest_of_ten(engine)
        for _ in range(_TRIES - 1):
            if beside < limit:
                break
            beside = await _slowest_of_ten(engine)  # it may have been the machine, which others use, too
        assert beside < limit, (
            f"{name}: others took {beside * 1000:.1f} ms, and {before * 1000:.1f} ms before"
        )
        await _assert_parks(poisoned)
        assert await engine.run(stay_well()) == 3


async def _slowest_of_ten(engine: Engine) -> float:
    """The latency that nine runs in ten stay below, in seconds."""
    took: list[float] = []
    for _ in range(_HEALTHY):
        began = time.perf_counter()
        assert await engine.run(stay_well()) == 3
        took.append(time.perf_counter() - began)
    return sorted(took)[_HEALTHY * 9 // 10]


async def _assert_parks(run: Run[None]) -> None:
    try:
        async with asyncio.timeout(20):
            await run.result()
    except RunParked:
        return
    raise AssertionError("a run that was poisoned came to an end")


def _die_of(name: str, folder: Path) -> None:
    """A step takes its worker with it, again and again: its run parks, and the others come to their end."""
    url = f"sqlite:///{folder / 'runs.db'}"

    async def live() -> None:
        async with Engine(url) as engine:
            healthy = [await engine.start(stay_well(), id=f"well-{number}") for number in range(3)]
            run = await engine.start(drink(name), id="poisoned")
            for one in healthy:
                assert await one.result() == 3
            await _assert_parks(run)

    for deaths in range(_DEATHS_MAX + 1):
        life = Life(live, errors=folder / "errors")
        life.ends_within(20)
        if life.code == 0:
            assert deaths <= _DEATHS_MAX, f"{name}: parked only after {deaths} deaths"
            return
        assert life.code != FAILED, (folder / "errors").read_text()[-1000:]
    raise AssertionError(f"{name}: not parked after {_DEATHS_MAX + 1} deaths")


def _controls(work: Work) -> Sequence[Control]:
    """A step that blocks the loop: others must be seen to wait for it."""
    with work.fresh_folder() as folder, _blocking():
        broken = caught_by(lambda: asyncio.run(_live_beside("raises", folder)))
    return [
        Control(
            "a step blocks the loop for some milliseconds, over and over", bool(broken), broken or "nothing"
        )
    ]


@contextmanager
def _blocking() -> Iterator[None]:
    async def block() -> None:
        for _ in range(200):
            threading.Event().wait(0.03)
            await asyncio.sleep(0)

    before = POISON["raises"]
    POISON["raises"] = Step(block, name="raises")
    try:
        yield
    finally:
        POISON["raises"] = before


_ALL = len(POISON) + len(DEADLY)

ROW = Row(
    number=17,
    name="poison",
    fault="A step raises, hangs, recurses without end, spins, exits, crashes or ends the process.",
    how=f"{_ALL} steps, on the loop, on threads and in processes of their own, beside runs that are well.",
    holds=(
        "the poisoned run parks, and no other",
        f"others take less than {_SLOWER_MAX:g} times as long as before",
        f"a step that takes the worker with it parks its run after {_DEATHS_MAX} deaths at most",
    ),
    trials=Trials(push=_ALL, long=5 * _ALL, release=50 * _ALL),
    run=lambda work: work.counted(_trial, controls=_controls),
)
