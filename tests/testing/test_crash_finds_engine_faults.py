"""Faults of the engine itself, planted one by one: crash_everywhere catches each, and names the law."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

import apsw
import pytest

from perdure import Signal, State, StepInfo, now, start_child, step, workflow
from perdure.core.execution import Execution
from perdure.core.loop import RunLoop
from perdure.core.records import Message, Record
from perdure.runtime.closing import Closing
from perdure.runtime.committer import Committer
from perdure.runtime.driver import Driver
from perdure.runtime.inbox import Inbox
from perdure.runtime.resident import Resident
from perdure.runtime.timers import Timers
from perdure.stores.sqlite import SqliteStore, messages
from perdure.stores.sqlite.lease import Leases
from perdure.testing import Cancel, CrashFailure, Send, crash_everywhere

answer = Signal[int]("answer")
stage = State[str]("stage")


@step
async def nothing(number: int) -> int:
    return number


@step
async def slow(number: int) -> int:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return number


@workflow
async def two_steps() -> int:
    return await nothing(1) + await nothing(2)


@workflow
async def first_of_two() -> list[int]:
    """The order in which they come decides what is returned."""
    came = [await future for future in asyncio.as_completed([slow(1), nothing(2)])]
    await nothing(3)
    return came


@workflow
async def adds_answers() -> int:
    return await answer.receive() + await answer.receive()


@workflow
async def sleeps() -> str:
    await asyncio.sleep(86_400)
    return "slept"


@workflow
async def rings() -> int:
    """How often a timer has rung by the end."""
    rung: list[int] = []
    asyncio.get_running_loop().call_later(60, rung.append, 1)
    await asyncio.sleep(120)
    await nothing(1)
    return len(rung)


@workflow
async def time_goes_on() -> bool:
    before = now()
    await nothing(1)
    await nothing(2)
    return now() >= before


@workflow
async def leaf() -> int:
    await answer.receive()
    return await nothing(1)


@workflow
async def has_child() -> str:
    stage.set("has a child")
    await start_child(leaf())
    await nothing(1)
    return "ended"


async def test_without_a_fault_all_of_them_pass() -> None:
    for call, events in [
        (two_steps(), []),
        (first_of_two(), []),
        (adds_answers(), [Send(answer, 1), Send(answer, 2)]),
        (sleeps(), []),
        (rings(), []),
        (time_goes_on(), []),
        (has_child(), []),
    ]:
        assert (await crash_everywhere(call, events=events, pairs=True)).runs > 20


async def test_a_missing_fence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leases, "check_fence", lambda *_: None)

    with pytest.raises(CrashFailure, match="lost its lease"):
        await crash_everywhere(two_steps())


async def test_a_record_that_is_delivered_before_it_is_on_disk_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_record = Committer.add_record

    def deliver(self: Any, *what: Any) -> None:
        with self._turn:
            self._deliver(*what)

    def deliver_early(self: Any, resident: Any, record: Record, value: Any) -> None:
        self._loop.call_soon(deliver, self, [resident], [record], [value])
        add_record(self, None, record, value)

    monkeypatch.setattr(Committer, "add_record", deliver_early)

    with pytest.raises(CrashFailure, match=r"with 1 records delivered, when only 0 were on disk"):
        await crash_everywhere(two_steps())


async def test_a_replay_that_takes_another_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = Execution.replay

    def by_key(self: Execution, records: Iterable[Record]) -> None:
        ordered = sorted(records, key=lambda record: record.key)
        replay(self, [record._replace(seq=seq) for seq, record in enumerate(ordered)])

    monkeypatch.setattr(Execution, "replay", by_key)

    with pytest.raises(CrashFailure, match=r"\[1,2\]"):
        await crash_everywhere(first_of_two())


async def test_calls_that_are_counted_over_the_whole_process_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(Execution, "_next_key", lambda self, name: f"0/{next(numbers)}/{name}")

    with pytest.raises(CrashFailure, match="does not replay"):
        await crash_everywhere(two_steps())


async def test_an_idempotency_key_that_changes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    monkeypatch.setattr(StepInfo, "idempotency_key", property(lambda self: f"{next(numbers)}"))

    with pytest.raises(CrashFailure, match="with another idempotency key"):
        await crash_everywhere(two_steps())


async def test_an_idempotency_key_that_two_steps_share_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepInfo, "idempotency_key", property(lambda self: "one for all"))

    with pytest.raises(CrashFailure, match="has the idempotency key of"):
        await crash_everywhere(two_steps())


async def test_a_recorded_step_that_is_called_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Execution, "replay", lambda self, records: None)

    with pytest.raises(CrashFailure, match="was called again, and its result was on disk"):
        await crash_everywhere(two_steps())


async def test_a_message_that_is_taken_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    send = messages._send

    def send_anew(connection: apsw.Connection, message: Message, position: int, lease: int) -> int:
        return send(connection, message._replace(request=""), position, lease)

    monkeypatch.setattr(messages, "_send", send_anew)

    with pytest.raises(CrashFailure, match="send-answer/1:twice"):
        await crash_everywhere(adds_answers(), events=[Send(answer, 1), Send(answer, 2)], kinds=["twice"])


async def test_a_message_that_is_delivered_again_after_a_crash_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take = Inbox._take

    def take_in_a_later_commit(self: Inbox, message: Message) -> None:
        self._driver.committer.after_commit(lambda error: None if error else take(self, message))

    monkeypatch.setattr(Inbox, "_take", take_in_a_later_commit)

    with pytest.raises(
        CrashFailure, match=r"answer/1:after-record.*\n.*\n.*completed: 2; without a crash.* 3"
    ):
        await crash_everywhere(adds_answers(), events=[Send(answer, 1), Send(answer, 2)])


async def test_a_message_that_is_left_on_disk_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inbox, "_take", lambda self, message: None)

    with pytest.raises(CrashFailure, match=r"a message to run 'adds_answers'.*was left behind"):
        await crash_everywhere(adds_answers(), events=[Send(answer, 1), Send(answer, 2)])


async def test_a_timer_that_is_forgotten_while_no_worker_is_there_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Timers, "_read_sleepers", lambda self: None)
    monkeypatch.setattr(SqliteStore, "claim", lambda self, lease, **which: [])

    with pytest.raises(CrashFailure, match="waits for what cannot come any more"):
        await crash_everywhere(sleeps(), kinds=["due-while-down"])


async def test_a_timer_that_fires_again_after_a_crash_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    call_later, go_live = RunLoop.call_later, Execution.go_live
    armed: dict[RunLoop, Any] = {}

    def note(self: RunLoop, delay: float, callback: Any, *args: Any, **how: Any) -> Any:
        if delay == 60:
            armed[self] = partial(callback, *args)
        return call_later(self, delay, callback, *args, **how)

    def fire_anew(self: Execution) -> None:
        if self.loop.time() > self.facts.created_at_ms / 1000 + 60 and self.loop in armed:
            armed.pop(self.loop)()
        go_live(self)

    monkeypatch.setattr(RunLoop, "call_later", note)
    monkeypatch.setattr(Execution, "go_live", fire_anew)

    with pytest.raises(CrashFailure, match="completed: 2; without a crash it is completed: 1"):
        await crash_everywhere(rings())


async def test_a_clock_that_takes_a_run_back_with_it_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    next_record, advance = Resident.next_record, RunLoop.advance

    def of_any_time(self: Resident, *what: Any) -> Record:
        self.last_at_ms = 0
        return next_record(self, *what)

    def to_any_time(self: RunLoop, at_ms: int) -> None:
        self._time = 0.0
        advance(self, at_ms)

    monkeypatch.setattr(Resident, "next_record", of_any_time)
    monkeypatch.setattr(RunLoop, "advance", to_any_time)

    with pytest.raises(
        CrashFailure, match=r"nothing/1:clock-back.*\n.*\n.*completed: false; without a crash"
    ):
        await crash_everywhere(time_goes_on())


async def test_a_child_that_outlives_its_parent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    await crash_everywhere(has_child(), events=[Cancel("enough")])
    monkeypatch.setattr(Closing, "_cancel_all", lambda self, children: None)

    with pytest.raises(CrashFailure, match="waits for what cannot come any more"):
        await crash_everywhere(has_child())


async def test_a_state_that_is_lost_in_a_crash_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    go_live = Execution.go_live

    def forget_states(self: Execution) -> None:
        self._published = None
        go_live(self)

    monkeypatch.setattr(Execution, "go_live", forget_states)

    with pytest.raises(CrashFailure, match=r"without a crash it is completed: \"ended\" \(stage"):
        await crash_everywhere(has_child(), kinds=["before-record"])


async def test_an_end_that_nobody_writes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out = Driver.carry_out
    ends = itertools.count()

    def forget_second_end(self: Driver, resident: Any) -> None:
        if resident.execution.outcome is not None and next(ends) == 1:
            return
        carry_out(self, resident)

    monkeypatch.setattr(Driver, "carry_out", forget_second_end)

    with pytest.raises(CrashFailure, match="waits for what cannot come any more"):
        await crash_everywhere(two_steps())
