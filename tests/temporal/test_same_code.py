"""Workflow code does on Temporal what it does on a store, and Temporal's own replay finds the same."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from perdure import (
    Engine,
    NonRetryable,
    NotSerialisable,
    Retry,
    RunFailed,
    Signal,
    State,
    StepFailed,
    StepTimedOut,
    Update,
    UpdateRefused,
    compensate,
    continue_as_new,
    now,
    patched,
    random,
    run_info,
    step,
    step_info,
    uuid,
    workflow,
)

QUICK = Retry(attempts=2, delay=0.001)

word = Signal[str]("word")
progress = State[list[str]]("progress")
multiply = Update[int, int]("multiply")

log: list[str] = []
"""What steps did, in the test's own process."""


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


@dataclass(frozen=True)
class Parcel:
    name: str
    price: Decimal
    sent: datetime
    tags: frozenset[str]


class OutOfStock(NonRetryable):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"{left} of {item} are left")
        self.item = item
        self.left = left


@step
async def echo(text: str) -> str:
    log.append(text)
    return text


@step
def double_price(parcel: Parcel) -> Parcel:
    return Parcel(parcel.name, parcel.price * 2, parcel.sent, parcel.tags)


@step
async def hang(text: str) -> str:
    try:
        await asyncio.Event().wait()
    finally:
        log.append(f"{text} stopped")
    return text


@step
def find(item: str) -> int:
    raise OutOfStock(item, 3)


@step(retry=QUICK)
async def fail(text: str) -> str:
    log.append(f"{text} {step_info().attempt} {step_info().key}")
    raise OSError(f"{text} is down")


@step(retry=QUICK, timeout=0.05)
async def too_slow() -> None:
    await asyncio.Event().wait()


@step
async def key() -> str:
    return step_info().idempotency_key


# -- values and errors ------------------------------------------------------------------------------


@workflow
async def send_parcel(parcel: Parcel) -> Parcel:
    return await double_price(parcel)


async def test_values_cross_by_their_hints(home: str) -> None:
    parcel = Parcel("lamp", Decimal("9.90"), datetime(2026, 1, 1, tzinfo=UTC), frozenset({"a", "b"}))

    async with Engine(home) as engine:
        sent = await engine.run(send_parcel(parcel))

    assert sent == Parcel("lamp", Decimal("19.80"), parcel.sent, parcel.tags)


@workflow
async def look_for(item: str) -> str:
    try:
        await find(item)
    except OutOfStock as error:
        return f"{error.left} {error.item}"
    return "found"


async def test_an_error_of_a_step_comes_back_as_itself(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(look_for("lamp")) == "3 lamp"


@workflow
async def look_and_fail(item: str) -> int:
    return await find(item)


async def test_the_error_that_ends_a_run_is_the_cause_of_what_its_result_raises(home: str) -> None:
    async with Engine(home) as engine:
        with pytest.raises(RunFailed) as caught:
            await engine.run(look_and_fail("lamp"), id="17")

    assert isinstance(caught.value.__cause__, OutOfStock)
    assert caught.value.__cause__.left == 3
    assert str(caught.value) == "Run '17' failed: OutOfStock: 3 of lamp are left."


@workflow
async def try_twice() -> list[str]:
    try:
        await fail("shop")
    except StepFailed as error:
        told = [error.step, str(error), *(f"{each.number} {each.error}" for each in error.attempts)]
        return told if isinstance(error, OSError) else []
    return []


async def test_a_step_that_fails_for_good_brings_all_its_attempts(home: str) -> None:
    async with Engine(home) as engine:
        told = await engine.run(try_twice())

    assert told == ["fail", "shop is down", "1 OSError: shop is down", "2 OSError: shop is down"]
    assert log == ["shop 1 0/0/fail", "shop 2 0/0/fail"]


@workflow
async def wait_for_the_slow() -> str:
    try:
        await too_slow()
    except StepTimedOut as error:
        return (
            f"{isinstance(error, TimeoutError)} {len(error.attempts) if isinstance(error, StepFailed) else 0}"
        )
    return "in time"


async def test_a_step_that_takes_too_long_is_stopped_and_tried_again(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(wait_for_the_slow()) == "True 2"


@workflow
async def call_with_a_function() -> str:
    try:
        await echo(print)  # type: ignore[arg-type]
    except NotSerialisable as error:
        return error.path
    return "sent"


async def test_what_cannot_be_written_is_refused_at_the_call(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(call_with_a_function()) == "echo(text)"


@workflow
async def keys() -> list[str]:
    return [await key(), await key()]


async def test_each_call_has_an_idempotency_key_of_its_own(home: str) -> None:
    async with Engine(home) as engine:
        found = {*await engine.run(keys(), id="keys-1"), *await engine.run(keys(), id="keys-2")}

    assert len(found) == 4
    assert all(len(each) == 32 for each in found)


# -- asyncio ----------------------------------------------------------------------------------------


async def rest(text: str) -> str:
    try:
        await asyncio.sleep(3_600)
    finally:
        log.append(text)
    return text


@workflow
async def group_that_fails() -> list[str]:
    order: list[str] = []

    async def guarded(text: str) -> None:
        try:
            await hang(text)
        except asyncio.CancelledError:
            order.append(text)
            raise

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            for text in "abcdefgh":
                group.create_task(guarded(text))
            await echo("first")
            raise ValueError("enough")
    return order


async def test_a_group_that_fails_cancels_its_tasks_in_the_order_of_their_making(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(group_that_fails()) == list("abcdefgh")


@workflow
async def race() -> list[str]:
    steps = [asyncio.create_task(echo(text)) for text in "abc"]
    first = [await one for one in asyncio.as_completed([echo("x"), echo("y")])]
    done, _ = await asyncio.wait(steps)
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def produce() -> None:
        for text in "12":
            await queue.put(await echo(text))

    producer = asyncio.create_task(produce())
    taken = [await queue.get(), await queue.get()]
    await producer
    return [*sorted(first), *sorted(task.result() for task in done), *taken]


async def test_tasks_queues_and_races_work_as_they_do_in_asyncio(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(race()) == ["x", "y", "a", "b", "c", "1", "2"]


@workflow
async def give_up() -> list[str]:
    told: list[str] = []
    for begin in (lambda: hang("step"), word.receive, lambda: asyncio.sleep(1_000)):
        try:
            async with asyncio.timeout(0.05):
                await begin()
        except TimeoutError:
            told.append("late")
    told.append(await asyncio.wait_for(echo("in time"), 60))
    return told


async def test_timeouts_end_steps_signals_and_sleeps(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(give_up()) == ["late", "late", "late", "in time"]


@workflow
async def drawn() -> list[str]:
    before = now()
    numbers = [str(random().random()), str(uuid())]
    await asyncio.sleep(0.01)
    assert now() - before >= timedelta(milliseconds=10)
    return [*numbers, *await asyncio.gather(*(draw() for _ in range(2)))]


async def draw() -> str:
    return str(random().random())


async def test_time_and_chance_are_the_runs_own(home: str) -> None:
    async with Engine(home) as engine:
        one, other = await engine.run(drawn(), id="drawn-1"), await engine.run(drawn(), id="drawn-2")

    assert len({*one, *other}) == 8


# -- talking ----------------------------------------------------------------------------------------


@workflow
async def listen(count: int) -> list[str]:
    heard: list[str] = []
    while len(heard) < count:
        heard.append(await word.receive())
        progress.set(heard)
    return heard


async def test_signals_are_received_in_order_and_a_state_is_published(home: str) -> None:
    texts = [str(number) for number in range(20)]

    async with Engine(home) as engine:
        run = await engine.start(listen(20))
        for text in texts:
            await run.send(word, text)

        assert await run.result() == texts
        assert await run.state(progress) == texts


async def test_a_watcher_sees_each_value_that_is_there_when_it_looks(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(listen(3))
        values = run.watch(progress)
        seen: list[list[str]] = []
        for text in "abc":
            await run.send(word, text)
            seen.append(await anext(values))

        assert seen == [["a"], ["a", "b"], ["a", "b", "c"]]
        assert [value async for value in values] == []


async def test_a_signal_that_is_sent_again_under_its_id_is_taken_once(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(listen(2))
        await run.send(word, "a", id="1")
        await run.send(word, "a", id="1")
        await run.send(word, "b", id="2")

        assert await run.result() == ["a", "b"]
        await run.send(word, "a", id="1")  # harmless, also now


@workflow
async def reckon() -> list[int]:
    answers: list[int] = []

    async def by(factor: int) -> int:
        answers.append(int(await echo(str(factor))) * 2)
        return answers[-1]

    def small(factor: int) -> None:
        if factor > 10:
            raise ValueError("too large")

    multiply.handle(by, validate=small)
    await word.receive()
    return answers


async def test_updates_are_judged_handled_and_answered(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(reckon())
        answers = [await run.update(multiply, 2), await run.update(multiply, 3)]
        with pytest.raises(UpdateRefused, match="too large"):
            await run.update(multiply, 11)
        await run.send(word, "end")

        assert await run.result() == answers == [4, 6]


async def test_an_update_that_no_handler_takes_is_refused(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(listen(1))
        with pytest.raises(UpdateRefused, match="no handler"):
            await run.update(multiply, 2)
        await run.send(word, "end")
        await run.result()


# -- sagas, patches, generations --------------------------------------------------------------------


@workflow
async def saga(ends_well: bool) -> str:
    compensate(echo("undo 1"))
    await echo("do 1")
    compensate(echo("undo 2"))
    if ends_well:
        return "done"
    await find("lamp")
    return "not reached"


@pytest.mark.parametrize(
    ("ends_well", "told"), [(True, ["do 1"]), (False, ["do 1", "undo 2", "undo 1"])], ids=["well", "badly"]
)
async def test_a_run_that_ends_badly_undoes_in_reverse(home: str, ends_well: bool, told: list[str]) -> None:
    async with Engine(home) as engine:
        with suppress(RunFailed):
            await engine.run(saga(ends_well))

    assert log == told


@workflow
async def grown() -> str:
    first = patched("look first")
    await echo("work")
    return f"{first} {patched('look first')} {patched('look later')}"


async def test_a_patch_is_taken_by_a_run_that_comes_to_it_for_the_first_time(home: str) -> None:
    async with Engine(home) as engine:
        assert await engine.run(grown()) == "True True True"


@workflow
async def goes_rounds(number: int = 1) -> str:
    progress.set([str(number)])
    if number < 3:
        await word.receive()
        continue_as_new(goes_rounds(number + 1))
    left = [await word.receive(), await word.receive()]
    return f"{run_info().generation}: {' '.join(left)}"


async def test_a_run_that_continues_as_new_hands_on_what_it_did_not_receive(home: str) -> None:
    async with Engine(home) as engine:
        run = await engine.start(goes_rounds(), id="goes_rounds", tags={"kind": "round"})
        for text in "abcd":
            await run.send(word, text)

        assert await run.result() == "3: c d"
        info = await run.info()
        assert (info.generation, info.tags) == (3, {"kind": "round"})
