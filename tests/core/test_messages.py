"""Signals and updates: in order, none lost, and a validator that may only look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from perdure import Signal, State, Update, compensate, continue_as_new, now, patched, random, step, workflow
from perdure.errors import UpdateRefused

from .harness import Body, Kind, Status, Trial, crash_everywhere, reborn

word = Signal[str]("word")
other = Signal[str]("other")
add = Update[int, int]("add")
pathy = Update[int, int]("cart/add")
status = State[str]("status")


@step
def same(value: Any = None) -> Any:
    return value


@workflow
async def next_one() -> None: ...


# -- signals -------------------------------------------------------------------------------------


def test_signals_are_received_in_the_order_in_which_they_came() -> None:
    async def body() -> Any:
        await same()
        return [await word.receive() for _ in range(3)]

    trial = Trial().begin(body)
    trial.signal("word", "a")
    trial.signal("other", "not for it")
    trial.signal("word", "b")
    trial.answer("0/0/same")
    trial.signal("word", "c")

    assert trial.result == ["a", "b", "c"]
    crash_everywhere(body, trial)


def test_receivers_are_served_in_the_order_of_asking() -> None:
    async def body() -> Any:
        async def receive(name: str) -> str:
            return f"{name} got {await word.receive()}"

        return await asyncio.gather(*(receive(name) for name in "xyz"))

    trial = Trial().begin(body)
    for value in "abc":
        trial.signal("word", value)

    assert trial.result == ["x got a", "y got b", "z got c"]


def test_a_receiver_that_is_cancelled_loses_nothing() -> None:
    async def body() -> Any:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await word.receive()
        first = asyncio.create_task(word.receive())
        second = asyncio.create_task(word.receive())
        await asyncio.sleep(1)
        first.cancel()
        return await second

    trial = Trial().begin(body)
    trial.tick()
    trial.tick()
    trial.signal("word", "kept")

    assert trial.result == "kept"
    crash_everywhere(body, trial)


def test_a_signal_goes_to_the_next_when_the_receiver_that_it_woke_is_cancelled() -> None:
    async def body() -> Any:
        first = asyncio.create_task(word.receive())
        second = asyncio.create_task(word.receive())

        def wake_and_cancel(value: str) -> None:
            trial.execution.mailbox("word", word.decode).put(b'"kept"')
            first.cancel()

        other.handle(wake_and_cancel)
        await asyncio.wait([second])
        return [first.cancelled(), second.result()]

    trial = Trial().begin(body)
    trial.signal("other", "now")

    assert trial.result == [True, "kept"]


def test_a_receiver_that_polls_leaves_no_waiters_behind() -> None:
    async def body() -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await word.receive()

    trial = Trial().begin(body)
    for _ in range(200):
        trial.tick()

    assert len(trial.execution.mailbox("word", word.decode)._waiters) == 1


def test_a_plain_handler_gets_what_waits_and_then_each_as_it_comes() -> None:
    async def body() -> Any:
        seen: list[str] = []
        await same()
        word.handle(seen.append)
        before = list(seen)
        await asyncio.sleep(5)
        return [before, seen]

    trial = Trial().begin(body)
    trial.signal("word", "early")
    trial.answer("0/0/same")
    trial.signal("word", "late")
    trial.tick()

    assert trial.result == [["early"], ["early", "late"]]
    crash_everywhere(body, trial)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside another loop"])
def test_an_async_handler_gets_a_task_of_the_run(inside: bool) -> None:
    async def body() -> Any:
        seen: list[str] = []

        async def handle(value: str) -> None:
            seen.append(await same(value))

        word.handle(handle)
        await asyncio.sleep(5)
        return seen

    def play() -> Trial:
        trial = Trial().begin(body)
        trial.signal("word", "a")
        trial.signal("word", "b")
        assert list(trial.open) == ["c1/0/same", "c2/0/same"]
        trial.answer("c2/0/same")
        trial.answer("c1/0/same")
        trial.tick()
        return trial

    async def playing() -> Trial:
        return play()

    trial = asyncio.run(playing()) if inside else play()

    assert trial.result == ["b", "a"]
    crash_everywhere(body, trial)


def test_a_handler_that_raises_stops_the_run() -> None:
    def refuse(value: str) -> None:
        raise ValueError(value)

    async def body() -> None:
        word.handle(refuse)
        await asyncio.sleep(5)

    trial = Trial().begin(body)

    with pytest.raises(ValueError, match="broken"):
        trial.signal("word", "broken")


# -- updates -------------------------------------------------------------------------------------


def counting(*, validate: Callable[[int], None] | None = None, late: bool = False) -> Body:
    async def body() -> Any:
        total = 0

        async def handle(value: int) -> int:
            nonlocal total
            checked = await same(value)
            total += checked
            return total

        if late:
            await same("first")
        add.handle(handle, validate=validate)
        await word.receive()
        return total

    return body


def only_positive(value: int) -> None:
    if value < 0:
        raise ValueError("below zero")


def test_an_update_is_recorded_handled_and_answered() -> None:
    body = counting(validate=only_positive)
    trial = Trial().begin(body)

    trial.update("add", "r1", 2)
    trial.update("add", "r2", 3)
    trial.answer("u1/0/same")
    trial.answer("u0/0/same")
    trial.signal("word", "over")

    assert trial.answers == {"r2": (True, 3), "r1": (True, 5)}
    assert trial.result == 5
    crash_everywhere(body, trial)


def test_an_answer_that_was_lost_is_given_again_after_a_replay() -> None:
    body = counting()
    trial = Trial().begin(body)
    trial.update("add", "r1", 2)
    trial.answer("u0/0/same")

    again = reborn(body, trial.journal)

    assert again.answers == trial.answers == {"r1": (True, 2)}


def test_what_the_validator_refuses_leaves_no_record() -> None:
    trial = Trial().begin(counting(validate=only_positive))

    with pytest.raises(UpdateRefused, match=r"ValueError: below zero\. Nothing was recorded"):
        trial.update("add", "r1", -1)

    assert (trial.journal, trial.open) == ([], {})


def test_an_update_of_the_wrong_type_is_refused() -> None:
    trial = Trial().begin(counting())

    with pytest.raises(UpdateRefused):
        trial.update("add", "r1", "two")


def test_an_update_without_a_handler_is_refused_until_there_is_one() -> None:
    trial = Trial().begin(counting(late=True))
    with pytest.raises(UpdateRefused, match="no handler for update 'add' now"):
        trial.update("add", "r1", 1)

    trial.answer("0/0/same")
    trial.update("add", "r2", 1)

    assert list(trial.open) == ["u1/0/same"]


def test_an_update_whose_handler_the_code_now_registers_later_is_handled_then() -> None:
    trial = Trial().begin(counting())
    trial.update("add", "r1", 7)

    again = Trial().replay(counting(late=True), trial.journal)
    waiting = list(again.open)
    again.answer("0/0/same")

    assert waiting == ["0/0/same"]
    assert list(again.open) == ["u0/0/same"]


def test_an_updates_name_may_hold_a_slash() -> None:
    async def body() -> Any:
        async def handle(value: int) -> int:
            return value + 1

        pathy.handle(handle)
        await word.receive()

    trial = Trial().begin(body)
    trial.update("cart/add", "r1", 1)

    assert trial.answers == {"r1": (True, 2)}


def test_a_handler_that_fails_tells_whoever_asked_and_leaves_the_run_alone() -> None:
    async def body() -> Any:
        async def handle(value: int) -> int:
            raise ValueError(f"no {value}")

        add.handle(handle)
        return await word.receive()

    trial = Trial().begin(body)
    trial.update("add", "r1", 1)
    trial.signal("word", "fine")

    ok, error = trial.answers["r1"]
    assert (ok, str(error)) == (False, "no 1")
    assert trial.result == "fine"


def test_whoever_still_waits_for_an_answer_when_the_run_ends_is_told() -> None:
    trial = Trial().begin(counting())
    trial.update("add", "r1", 1)
    trial.signal("word", "over")

    ok, error = trial.answers["r1"]
    assert not ok
    assert "ended before it answered" in str(error)


def awaiting() -> None:
    same(1).send(None)


CHANGES: dict[str, Callable[[], Any]] = {
    "publishes": lambda: status.set("changed"),
    "patches": lambda: patched("changed"),
    "compensates": lambda: compensate(same("undo")),
    "draws": lambda: random().random(),
    "handles": lambda: word.handle(print),
    "continues": lambda: continue_as_new(next_one()),
    "makes a task": lambda: asyncio.get_running_loop().call_soon(print),
    "calls a step": awaiting,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside another loop"])
def test_a_validator_that_changes_something_is_refused_and_changes_nothing(name: str, inside: bool) -> None:
    def validate(value: int) -> None:
        assert now() is not None
        CHANGES[name]()

    body = counting(validate=validate)
    trial = Trial().begin(body)
    before = trial.execution.next_deadline_ms(), dict(trial.execution._published or {})

    async def judge() -> None:
        trial.update("add", "r1", 1)

    with pytest.raises(UpdateRefused):
        asyncio.run(judge()) if inside else trial.update("add", "r1", 1)
    trial.signal("word", "over")

    assert (trial.execution.next_deadline_ms(), dict(trial.execution._published or {})) == before
    assert [record.kind for record in trial.journal] == [Kind.SIGNAL]
    assert (trial.result, trial.published, trial.status) == (0, [], Status.COMPLETED)


def test_a_state_is_published_in_versions_and_once_more_after_a_replay() -> None:
    async def body() -> None:
        for value in ("a", "b"):
            status.set(value)
            await same(value)

    trial = Trial().begin(body)
    trial.answer("0/0/same")

    again = reborn(body, trial.journal)

    assert trial.published == [("status", 1, "a"), ("status", 2, "b")]
    assert again.published == [("status", 2, "b")]
