"""Row 25: a workflow's code is changed under a run that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure import JournalMismatch, Run, RunParked, Signal, Workflow, patched, start_child, step
from perdure.core.execution import Execution
from perdure.core.records import Record
from perdure.testing import Harness

from .planted import caught_by, counting_calls, replaced
from .row import Control, Row, Trials, Work

Body = Callable[[], Coroutine[Any, Any, Any]]
go = Signal[int]("go")
done: list[str] = []


@step
async def pay(what: str) -> str:
    done.append(f"pay {what}")
    return what


@step
async def pack(what: str) -> str:
    done.append(f"pack {what}")
    return what


async def _wrap() -> str:
    return await pack("wrapped")


wrap = Workflow(_wrap, name="wrap")


@dataclass(frozen=True, slots=True)
class Edit:
    """The code before and after, both awaiting `go` at the place where the deploy comes."""

    what: str
    before: Body
    after: Body
    fits: bool
    """Whether a run may go on with the code after."""


async def plain() -> Any:
    paid = await pay("a")
    packed = await pack("b")
    await go.receive()
    return [paid, packed, await pay("c")]


async def another_step() -> Any:
    await pack("a")
    await go.receive()
    return await pay("new")


async def other_arguments() -> Any:
    await pay("other")
    await pack("b")
    await go.receive()
    return await pay("new")


async def one_less() -> Any:
    await pay("a")
    await go.receive()
    return await pay("new")


async def one_more_first() -> Any:
    await pack("new")
    await pay("a")
    await pack("b")
    await go.receive()
    return await pay("new")


async def other_order() -> Any:
    await pack("b")
    await pay("a")
    await go.receive()
    return await pay("new")


async def at_once() -> Any:
    await asyncio.gather(pay("a"), pack("b"))
    await go.receive()
    return await pay("new")


async def ends_early() -> Any:
    return await pay("a")


async def fails_early() -> Any:
    await pay("a")
    raise ValueError("new")


async def a_child() -> Any:
    await pay("a")
    await wrap()
    await go.receive()
    return await pay("new")


async def more_after() -> Any:
    paid = await pay("a")
    packed = await pack("b")
    await go.receive()
    return [paid, packed, await pack("d"), await pay("c")]


async def guarded() -> Any:
    if patched("check"):
        await pack("new")
    return await plain()


async def branches() -> Any:
    first, second = await asyncio.gather(pay("a"), _two("b"))
    await go.receive()
    return [first, second, await pay("c")]


async def _two(name: str) -> str:
    await pay(name)
    return await pack(name)


async def a_longer_branch() -> Any:
    first, second = await asyncio.gather(_one_more("a"), _two("b"))
    await go.receive()
    return [first, second, await pay("c")]


async def _one_more(name: str) -> str:
    paid = await pay(name)
    await pack("new")
    return paid


async def children() -> Any:
    child = await start_child(wrap())
    await child
    await go.receive()
    return await pay("c")


async def no_children() -> Any:
    await go.receive()
    return await pay("new")


EDITS = (
    Edit("nothing", plain, plain, fits=True),
    Edit("a step more behind what is on record", plain, more_after, fits=True),
    Edit("a step more, under patched()", plain, guarded, fits=True),
    Edit("another step in its place", plain, another_step, fits=False),
    Edit("other arguments", plain, other_arguments, fits=False),
    Edit("a step less", plain, one_less, fits=False),
    Edit("a step more in front", plain, one_more_first, fits=False),
    Edit("two steps the other way round", plain, other_order, fits=False),
    Edit("two steps at once instead of in a row", plain, at_once, fits=False),
    Edit("an end before what is on record", plain, ends_early, fits=False),
    Edit("an error before what is on record", plain, fails_early, fits=False),
    Edit("a child in place of a step", plain, a_child, fits=False),
    Edit("two branches in place of a row", plain, branches, fits=False),
    Edit("a row in place of two branches", branches, plain, fits=False),
    Edit("a child less", children, no_children, fits=False),
    Edit("a step more in one of two branches", branches, a_longer_branch, fits=True),
)


def _trial(seed: int, folder: Path) -> None:
    asyncio.run(deploy(EDITS[seed % len(EDITS)], folder))


async def deploy(edit: Edit, folder: Path) -> None:
    """Run up to `go` with the code before; deploy the code after; if that does not fit, the first again."""
    done.clear()
    before, after = Workflow(edit.before, name="changes"), Workflow(edit.after, name="changes")
    async with Harness(folder / "runs.db", workflows=[before, wrap]) as harness:
        await harness.start(before(), id="one")
        await harness.settle()
    effects = [*done]
    async with Harness(folder / "runs.db", workflows=[after, wrap]) as harness:
        await harness.settle()
        run = await harness.get("one")
        await run.send(go, 1)  # until then it waits on disk
        if edit.fits:
            await run.result()
            return
        parked = await _parked(run)
        assert isinstance(parked, JournalMismatch), f"{edit.what}: {parked!r}"
        assert "recorded" in str(parked) and "but the code now" in str(parked), str(parked)  # noqa: PT018
        assert done == effects, f"{edit.what}: done before it was noticed: {done[len(effects) :]}"
    async with Harness(folder / "runs.db", workflows=[before, wrap]) as harness:
        await harness.settle()
        await (await harness.get("one")).result()
        assert done == [*effects, "pay c"], f"{edit.what}: with the old code again it did {done}"


async def _parked(run: Run[Any]) -> BaseException | None:
    try:
        async with asyncio.timeout(2):
            await run.result()
    except RunParked as parked:
        return parked.__cause__
    except TimeoutError:
        raise AssertionError("the run goes on as if its code had not changed") from None
    raise AssertionError("the run came to its end as if its code had not changed")


def _controls(work: Work) -> Sequence[Control]:
    def believe(self: Execution, record: Record) -> Any:
        return self._pending.pop(
            record.key, None
        )  # and no word where nothing asks for it, or with other arguments

    planted = (
        ("a record that nothing asks for is passed over", lambda: replaced(Execution, _take=believe)),
        ("a call's key is its number in the run, not its place in its task", counting_calls),
    )
    return [_control(work, what, plant) for what, plant in planted]


def _control(work: Work, what: str, plant: Callable[[], AbstractContextManager[object]]) -> Control:
    seen: list[str] = []
    for number, edit in enumerate(EDITS):
        with work.fresh_folder() as folder, plant():
            broken = caught_by(lambda: _trial_of_control(number, folder))  # noqa: B023 (called at once)
        if broken:
            seen.append(f"{edit.what}: {broken}")
    return Control(
        what, bool(seen), f"in {len(seen)} of {len(EDITS)} edits: {seen[0] if seen else 'nothing'}"
    )


def _trial_of_control(seed: int, folder: Path) -> None:
    try:
        _trial(seed, folder)
    except RunParked as parked:
        raise AssertionError(f"code that fits is refused: {parked.__cause__}") from parked


ROW = Row(
    number=25,
    name="changed code",
    fault="A workflow's code is changed under a run that waits.",
    how=f"A corpus of {len(EDITS)} edits, each deployed as a restart; then the old code once more.",
    holds=(
        "what does not fit the journal is noticed before any new effect, and the error names both sides",
        "the run parks, and goes on by itself when the old code is back",
        "what fits goes on: a step more behind the journal, in one branch, or under patched()",
    ),
    trials=Trials(push=len(EDITS), long=len(EDITS), release=len(EDITS)),
    run=lambda work: work.counted(_trial, controls=_controls),
)
