"""The lives of one crash run, looked at from inside: when each begins, and what it does again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure import Signal, WorkflowCall, step, workflow
from perdure.testing import Event, ManualClock, Send
from perdure.testing.clock import START_MS
from perdure.testing.crashing.disks import open_memory
from perdure.testing.crashing.living import Driving
from perdure.testing.crashing.spots import read_spots
from perdure.testing.crashing.world import World

DAY_MS = 86_400_000
approval = Signal[str]("approval")


@step
async def charge(order: str) -> str:
    return order


@workflow
async def sleeps(order: str) -> str:
    await asyncio.sleep(DAY_MS / 1000)
    return await charge(order)


@workflow
async def waits(order: str) -> str:
    return await charge(await approval.receive())


async def live_through(call: WorkflowCall[str], crash: str, events: Sequence[Event] = ()) -> World:
    world = World(open_memory(), ManualClock(), read_spots(crash))
    engine = await Driving(world, call, events).to_the_end()
    await engine.close()
    world.store.close()
    return world


async def test_what_was_due_while_no_worker_was_there_is_due_when_the_next_one_opens() -> None:
    world = await live_through(sleeps("17"), "wait/1:due-while-down")

    assert world.life == 2
    assert world.clock.now_ms() == START_MS + DAY_MS
    assert [moment for moment, _ in world.passed[1] if moment.startswith("wait")] == []


async def test_a_worker_that_dies_while_the_run_waits_leaves_the_time_as_it_is() -> None:
    world = await live_through(sleeps("17"), "start-sleeps/1:after-record")

    assert world.life == 2
    assert [moment for moment, _ in world.passed[1] if moment.startswith("wait/")] == ["wait/1"]


async def test_a_signal_whose_sender_did_not_hear_is_sent_again_and_taken_once() -> None:
    world = await live_through(waits("17"), "send-approval/1:after-record", [Send(approval, "ann")])

    assert [(effect.life, effect.args) for effect in world.effects] == [(2, ("ann",))]
    assert world.broken == ""


async def test_a_worker_that_is_held_up_wakes_while_the_next_one_goes_on_and_changes_nothing() -> None:
    world = await live_through(sleeps("17"), "charge/1:zombie")

    assert [effect.life for effect in world.effects] == [1, 2]
    assert world.broken == ""
