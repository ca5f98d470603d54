"""Replay: what was recorded first is delivered first, and the code asks for the same again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import step, workflow
from perdure.errors import JournalMismatch

from .harness import (
    CREATED_AT_MS,
    Body,
    Kind,
    Record,
    Status,
    Trial,
    crash_everywhere,
    end_of,
    live,
    newest,
    reborn,
    shuffled,
)


@step
def a(value: Any = None) -> Any:
    return value


@step
def b(value: Any = None) -> Any:
    return value


@step
def end(value: Any = None) -> Any:
    return value


@workflow
async def other(value: Any = None) -> Any:
    return value


# -- order ---------------------------------------------------------------------------------------


async def two_branches() -> Any:
    seen: list[str] = []

    async def branch(name: str) -> None:
        for turn in range(3):
            seen.append(await a(f"{name}{turn}"))  # noqa: PERF401 (one by one is what is tested)

    await asyncio.gather(branch("x"), branch("y"))
    return seen


async def a_race() -> Any:
    tasks = [asyncio.create_task(one) for one in (a("x"), a("y"), a("z"))]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    winner = done.pop().result()
    return [winner, await b(winner)]


async def a_queue() -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def produce(name: str) -> None:
        for turn in range(3):
            queue.put_nowait(await a(f"{name}{turn}"))

    async with asyncio.TaskGroup() as group:
        group.create_task(produce("x"))
        group.create_task(produce("y"))
        return [await b(await queue.get()) for _ in range(6)]


async def as_they_come() -> Any:
    return [await b(await one) for one in asyncio.as_completed([a(value) for value in range(5)])]


RACES: list[Body] = [two_branches, a_race, a_queue, as_they_come]


@pytest.mark.parametrize("body", RACES)
@pytest.mark.parametrize("seed", range(8))
def test_results_come_in_the_order_in_which_they_were_recorded(body: Body, seed: int) -> None:
    trial = live(body, shuffled(seed))

    assert trial.status is Status.COMPLETED
    crash_everywhere(body, trial)


def test_replay_takes_turns_between_branches_as_the_run_did() -> None:
    trial = live(two_branches)

    again = reborn(two_branches, trial.journal)

    assert trial.result == ["x0", "y0", "x1", "y1", "x2", "y2"]
    assert again.asked == trial.asked


def test_the_order_decides_a_race() -> None:
    first = live(a_race)
    last = live(a_race, newest)

    assert (first.result, last.result) == (["x", "x"], ["z", "z"])
    crash_everywhere(a_race, last)


def test_a_step_more_in_one_branch_does_not_shift_the_keys_of_another() -> None:
    def branches(*, more: bool) -> Body:
        async def left() -> Any:
            first = await a("left")
            return [first, await b("more")] if more else [first]

        async def right() -> Any:
            return [await a("right"), await a("right again")]

        async def body() -> Any:
            return await asyncio.gather(left(), right())

        return body

    trial = Trial().begin(branches(more=False))
    for key in ("0.2/0/a", "0.1/0/a"):
        trial.answer(key)

    again = reborn(branches(more=True), trial.journal).finish()

    assert again.result == [["left", "more"], ["right", "right again"]]


def test_what_is_unanswered_is_asked_for_again_after_a_replay_and_nothing_else() -> None:
    async def body() -> Any:
        return await asyncio.gather(a(1), a(2), b(3))

    trial = Trial().begin(body)
    trial.answer("0.2/0/a")

    again = reborn(body, trial.journal)

    assert list(again.open) == ["0.1/0/a", "0.3/0/b"]


# -- records that were written together with the end ----------------------------------------------


async def first_of_two() -> Any:
    tasks = [asyncio.create_task(one) for one in (a("x"), a("y"))]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


@pytest.mark.parametrize("kind", [Kind.STEP, Kind.SIGNAL, Kind.TICK, Kind.CANCEL])
def test_a_record_in_the_same_commit_as_the_one_that_ended_the_run_is_no_mismatch(kind: Kind) -> None:
    trial = Trial().begin(first_of_two)
    trial.compute("0.1/0/a")
    if kind is Kind.STEP:
        trial.compute("0.2/0/a")
    else:
        trial.record(kind, "anything", 0, b"1")
    trial.deliver()

    again = reborn(first_of_two, trial.journal)

    assert len(trial.journal) == 2
    assert again.result == trial.result == "x"


# -- mismatches ----------------------------------------------------------------------------------


def as_text(error: JournalMismatch) -> str:
    return " ".join(str(error).split())


async def recorded() -> Any:
    one = await a(1)
    two = await b(2)
    return [one, two, await a(3)]


async def with_other_arguments() -> Any:
    await a(1)
    await b("changed")


async def with_another_name() -> Any:
    await a(1)
    await a(2)


async def without_a_call() -> Any:
    await a(1)
    await a(3)


async def that_ends_early() -> Any:
    return await a(1)


async def with_a_step_more() -> Any:
    await a(1)
    await end(0)
    await b(2)


async def reordered() -> Any:
    await b(2)
    await a(1)


async def that_waits_for_something_else() -> Any:
    await a(1)
    await asyncio.sleep(100)


async def in_another_task() -> Any:
    await a(1)
    await asyncio.create_task(b(2))


CHANGES: list[tuple[Body, tuple[str, ...]]] = [
    (
        with_other_arguments,
        ("'0/1/b' (record 1)", "other arguments: b('changed')", "in with_other_arguments"),
    ),
    (with_another_name, ("'0/1/b' (record 1)", "now asks for 'a'", "in with_another_name")),
    (without_a_call, ("'0/1/b' (record 1)", "now asks for 'a'", "in without_a_call")),
    (that_ends_early, ("'0/1/b' (record 1)", "now ends before it")),
    (with_a_step_more, ("'0/1/b' (record 1)", "now asks for 'end'", "in with_a_step_more")),
    (reordered, ("'0/0/a' (record 0)", "now asks for 'b'", "in reordered")),
    (that_waits_for_something_else, ("'0/1/b' (record 1)", "now asks for nothing")),
    (in_another_task, ("'0/1/b' (record 1)", "now asks for '0.1/0/b'", "in in_another_task")),
]


@pytest.mark.parametrize(("changed", "said"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_code_that_changed_under_a_run_is_told_what_where_and_what_to_do(
    changed: Body, said: tuple[str, ...]
) -> None:
    journal = live(recorded).journal
    trial = Trial()

    with pytest.raises(JournalMismatch) as found:
        trial.replay(changed, journal)

    text = as_text(found.value)
    for part in (*said, "Run 'run-1' recorded step", "patched("):
        assert part in text
    if "in " in said[-1]:
        assert f"{__file__}:" in text
    assert trial.open == {}, "nothing new was asked for"


def test_a_step_named_end_is_no_exception() -> None:
    async def before() -> Any:
        return await end(1)

    async def after() -> Any:
        return await a(1)

    journal = live(before).journal

    with pytest.raises(JournalMismatch, match="'0/0/end'"):
        reborn(after, journal)


def test_a_mismatch_is_found_before_anything_that_stands_behind_it() -> None:
    async def changed() -> Any:
        await a(1)
        await asyncio.gather(b("other"), a("new"), a("newer"))

    trial = Trial()

    with pytest.raises(JournalMismatch):
        trial.replay(changed, live(recorded).journal)

    assert trial.execution.commands == []
    assert trial.execution.replaying


def test_a_recorded_value_that_no_longer_fits_is_a_mismatch() -> None:
    @step(name="typed")
    def old(value: int) -> str:
        return str(value)

    @step(name="typed")
    def new(value: int) -> int:
        return value

    journal = live(lambda: old(1)).journal

    with pytest.raises(JournalMismatch, match=r"can no longer read.*Give new fields a default"):
        reborn(lambda: new(1), journal)


# -- patched, own --------------------------------------------------------------------------------


async def patched_flow() -> Any:
    from perdure import patched

    seen = [await a("old")]
    seen.extend([await b("new")] if patched("fraud check") else [])
    seen.append(await a("last"))
    return [*seen, patched("fraud check")]


async def unpatched_flow() -> Any:
    return [await a("old"), await a("last"), False]


def test_a_patch_is_taken_by_a_run_that_comes_to_it_live_and_in_all_its_replays() -> None:
    trial = live(patched_flow)

    assert trial.result == ["old", "new", "last", True]
    assert [(record.seq, record.key) for record in trial.journal if record.kind == Kind.PATCH] == [
        (1, "fraud check")
    ]
    for crash in range(2, len(trial.journal) + 1):
        assert reborn(patched_flow, trial.journal[:crash]).finish().result == trial.result


def test_a_patch_that_was_not_on_disk_before_the_crash_is_not_taken() -> None:
    journal = live(patched_flow).journal[:1]

    again = reborn(patched_flow, journal).finish()

    assert again.result == ["old", "last", False]


def test_a_patch_is_not_taken_by_a_run_that_went_by_before() -> None:
    before = Trial().begin(unpatched_flow)
    before.answer("0/0/a")
    before.answer("0/1/a")

    again = reborn(patched_flow, before.journal)

    assert again.result == ["old", "last", False]
    assert again.journal == before.journal


def test_a_patch_behind_the_last_record_of_a_replay_is_not_taken_for_good() -> None:
    before = Trial().begin(unpatched_flow)
    before.answer("0/0/a")

    again = reborn(patched_flow, before.journal).finish()

    assert again.result == ["old", "last", False]


def test_each_task_has_chance_of_its_own_and_the_same_in_each_replay() -> None:
    from perdure import now, random, uuid

    def branches(*, more: bool) -> Body:
        async def draw(*, twice: bool) -> list[Any]:
            drawn = [random().random()]
            if twice:
                drawn.append(random().random())
            await a(drawn[0])
            return [str(uuid()), random().randrange(1000)]

        async def body() -> Any:
            left, right = await asyncio.gather(draw(twice=more), draw(twice=False))
            return [left, right, str(uuid()), now().isoformat()]

        return body

    first = live(branches(more=False))
    other = live(branches(more=True))
    elsewhere = live(branches(more=False), seed=b"another seed 16!")

    crash_everywhere(branches(more=False), first)
    assert first.result[0] != first.result[1]
    assert first.result[0] != other.result[0]
    assert first.result[1:] == other.result[1:]
    assert first.result[2] != elsewhere.result[2]


# -- children ------------------------------------------------------------------------------------


def test_a_child_that_ended_before_it_was_awaited_is_answered_at_once() -> None:
    from perdure import start_child

    async def body() -> Any:
        child = await start_child(other("x"))
        before = await a("meanwhile")
        return [before, await child, await child]

    trial = Trial().begin(body)
    pending = trial.open.pop("0/0/other")
    trial.record(Kind.CHILD_STARTED, "0/0/other", pending.digest, b'"child-1"')
    trial.record(Kind.CHILD, "0/0/other/end", 0, b'"done"')
    trial.deliver()
    trial.finish()

    assert trial.result == ["meanwhile", "done", "done"]
    crash_everywhere(body, trial)


def test_a_child_whose_waiter_was_cancelled_is_cancelled_also_after_a_crash() -> None:
    async def body() -> Any:
        try:
            async with asyncio.timeout(1):
                await other("x")
        except TimeoutError:
            return await a("went on")

    trial = Trial().begin(body)
    trial.tick()

    again = reborn(body, trial.journal)

    assert trial.cancelled == again.cancelled == ["0/0/other"]
    assert list(again.open) == ["0/1/a"]


def test_what_was_asked_for_and_given_up_at_once_is_never_begun() -> None:
    async def body() -> Any:
        task = asyncio.create_task(other("x"))
        await asyncio.sleep(0)
        task.cancel()
        return await a("next")

    trial = Trial().begin(body)

    assert (list(trial.open), trial.cancelled) == (["0/0/a"], [])


def test_a_replay_of_nothing_is_a_fresh_start() -> None:
    again = reborn(recorded, []).finish()

    assert end_of(again) == end_of(live(recorded))


def test_a_run_goes_by_the_time_of_its_records() -> None:
    async def body() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        await a(1)
        times.append(loop.time())
        return times

    trial = Trial().begin(body)
    trial.now_ms += 1234
    trial.answer("0/0/a")

    start = CREATED_AT_MS / 1000
    assert trial.result == [start, start + 1.234]
    assert isinstance(trial.journal[0], Record)
