"""crash_everywhere on programs that are right: what it covers, what it calls it, and what it sends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from perdure import (
    PerdureError,
    Retry,
    RunFailed,
    Signal,
    State,
    Update,
    compensate,
    continue_as_new,
    start_child,
    step,
    step_info,
    uuid,
    workflow,
)
from perdure.testing import (
    Ask,
    Cancel,
    Crashed,
    CrashFailure,
    Event,
    Send,
    Wait,
    crash_everywhere,
    override,
)

approval = Signal[str]("approval")
move = Update[str, str]("move")
stage = State[str]("stage")


@step
async def charge(order: str) -> str:
    return f"receipt {order}"


@step
def pack(order: str) -> str:
    return f"packed {order}"


@step(worker="gpu")
async def render(order: str) -> str:
    return f"picture of {order}"


@workflow
async def pictured(order: str) -> str:
    receipt = await charge(order)
    return f"{await render(order)}, {receipt}"


@step
async def give_back(order: str) -> None:
    pass


@step(transaction=True)
def book(cents: int) -> int:
    ledger = step_info().connection
    ledger.execute("CREATE TABLE IF NOT EXISTS ledger (cents INTEGER)")
    ledger.execute("INSERT INTO ledger VALUES (?)", (cents,))
    return ledger.execute("SELECT count(*) FROM ledger").fetchall()[0][0]


@workflow
async def books_twice() -> int:
    """How often it has booked, as the store's own table has it."""
    await book(4200)
    return await book(4200)


@step(retry=Retry(attempts=3))
async def third_time(order: str) -> int:
    if step_info().attempt < 3:
        raise OSError("the line broke")
    return step_info().attempt


@workflow
async def packing(order: str) -> str:
    return await pack(order)


@workflow
async def shop(order: str) -> list[Any]:
    moved: list[str] = []

    async def on_move(address: str) -> str:
        moved.append(await charge(address))
        return "moved"

    move.handle(on_move)
    stage.set("new")
    both = await asyncio.gather(charge(order), pack(order))
    child = await start_child(packing(order))
    await asyncio.sleep(86_400)
    try:
        async with asyncio.timeout(3_600):
            who = await approval.receive()
    except TimeoutError:
        who = "nobody"
    tries = await third_time(order)
    stage.set("done")
    return [*both, await child, who, tries, *moved, str(uuid())]


@workflow
async def regrets(order: str) -> None:
    compensate(give_back(order))
    await charge(order)
    await asyncio.Event().wait()


@workflow
async def chain(left: int) -> int:
    await charge(str(left))
    if left:
        continue_as_new(chain(left - 1))
    return left


@workflow
async def fails(order: str) -> None:
    await charge(order)
    raise LookupError(order)


EVENTS: list[tuple[Any, list[Event]]] = [
    (shop("17"), []),
    (shop("17"), [Ask(move, "the moon"), Send(approval, "ann")]),
    (shop("17"), [Wait(90_001), Send(approval, "too late")]),
    (regrets("17"), [Cancel("regretted")]),
    (pictured("17"), []),
    (chain(2), []),
    (fails("17"), []),
]


@pytest.mark.parametrize(("call", "events"), EVENTS, ids=lambda value: str(value)[:40])
async def test_a_program_that_is_right_passes(call: Any, events: list[Event]) -> None:
    done = await crash_everywhere(call, events=events)

    assert done.runs > 10
    assert done.missed == ()
    assert done.compared


async def test_each_kind_has_its_spots() -> None:
    done = await crash_everywhere(shop("17"), events=[Ask(move, "the moon"), Send(approval, "ann")])

    assert set(done.by_kind) == {
        "before-effect", "after-effect", "before-record", "after-record", "zombie", "twice",
        "due-while-down", "clock-forward", "clock-back",
    }  # fmt: skip
    assert sum(done.by_kind.values()) == done.runs


async def test_the_spots_of_a_small_program_are_these() -> None:
    done = await crash_everywhere(fails("17"))

    assert sorted(
        spot for spot in done.spots if not spot.endswith(("zombie", "clock-forward", "clock-back"))
    ) == [
        "charge/1:after-effect",
        "charge/1:after-record",
        "charge/1:before-effect",
        "end/1:after-record",
        "end/1:before-record",
        "start-fails/1:after-record",
        "start-fails/1:before-record",
    ]


async def test_pairs_crash_the_second_worker_too() -> None:
    alone = await crash_everywhere(chain(0))

    pairs = await crash_everywhere(chain(0), pairs=True)

    assert pairs.runs > 2 * alone.runs
    assert "charge/1:after-effect, charge/1:after-effect" in pairs.spots


async def test_an_attempt_has_a_name_of_its_own() -> None:
    done = await crash_everywhere(shop("17"), events=[Send(approval, "ann")], kinds=["before-effect"])

    assert {"third_time/1:before-effect", "third_time/1~2:before-effect"} <= {*done.spots}


async def test_the_world_is_made_anew_and_looked_at_for_each_run() -> None:
    worlds: list[list[str]] = []

    def setup() -> list[str]:
        worlds.append([])
        return worlds[-1]

    async def check(crashed: Crashed[list[str]]) -> None:
        crashed.world.append(crashed.crash)
        assert crashed.result == 0
        assert [done.name for done in crashed.steps] == ["charge"]
        assert crashed.effects[0].args == ("0",)

    done = await crash_everywhere(chain(0), setup=setup, check=check)

    assert len(worlds) == done.runs + 2  # one to learn, one to replay what it recorded
    assert {*done.spots} == {crash for world in worlds for crash in world if crash}


async def test_the_error_of_a_run_that_fails_is_given_to_the_check() -> None:
    def check(crashed: Crashed[None]) -> None:
        assert isinstance(crashed.error, RunFailed)
        assert isinstance(crashed.error.__cause__, LookupError)

    await crash_everywhere(fails("17"), check=check)


async def test_an_effect_says_in_which_life_it_came_about() -> None:
    seen: list[list[int]] = []

    await crash_everywhere(
        chain(0),
        check=lambda crashed: seen.append([effect.life for effect in crashed.effects]),
        crash="charge/1:after-effect",
    )

    assert seen == [[1], [1, 2], [1]]  # without a crash, with it, and without, to replay


async def test_overrides_hold_in_all_crash_runs() -> None:
    with override(charge, lambda order: "fake") as fake:
        done = await crash_everywhere(chain(0))

    assert len(fake.calls) > done.runs / 2


async def test_a_check_that_fails_without_a_crash_raises_what_it_raises() -> None:
    def check(crashed: Crashed[None]) -> None:
        raise LookupError("always")

    with pytest.raises(LookupError, match="always"):
        await crash_everywhere(chain(0), check=check)


async def test_a_run_that_parks_without_a_crash_is_an_error() -> None:
    def broken(order: str) -> str:
        raise OSError("the line broke")

    with (
        override(charge, broken),
        pytest.raises(CrashFailure, match="wrong even without a crash: run 'chain' is parked"),
    ):
        await crash_everywhere(chain(0))


async def test_a_run_that_waits_for_ever_is_told_of() -> None:
    with pytest.raises(CrashFailure, match="waits for what cannot come any more"):
        await crash_everywhere(regrets("17"))


@pytest.mark.parametrize("crash", ["charge/1", "charge/1:later", ":zombie"])
async def test_a_crash_that_cannot_be_read_is_refused(crash: str) -> None:
    with pytest.raises(PerdureError, match="names no crash"):
        await crash_everywhere(chain(0), crash=crash)


async def test_a_crash_that_the_run_does_not_come_by_is_refused_with_those_that_it_does() -> None:
    with pytest.raises(PerdureError, match=r"It comes by .*charge/1:before-effect"):
        await crash_everywhere(chain(0), crash="charge/7:zombie")


@step
async def waits_for_the_outside(order: str) -> str:
    return await asyncio.to_thread(str.upper, order)


@workflow
async def shouts(order: str) -> str:
    return await waits_for_the_outside(order)


async def test_a_step_that_waits_for_the_outside_gets_its_answer_and_the_loop_is_as_it_was() -> None:
    selector = vars(asyncio.get_running_loop())["_selector"]

    await crash_everywhere(shouts("a"), check=is_shouted)

    assert "select" not in vars(selector)


def is_shouted(crashed: Crashed[None]) -> None:
    assert crashed.result == "A"


async def test_two_modules_may_each_have_a_workflow_of_one_name() -> None:
    def define(answer: str) -> Any:
        @workflow(name="twin")
        async def twin() -> str:
            return await charge(answer)

        return twin

    def define_other() -> Any:
        @workflow(name="twin")
        async def other() -> str:
            return "the other"

        return other

    twin, other = define("mine"), define_other()

    done = await crash_everywhere(twin(), check=lambda crashed: _is(crashed.result, "receipt mine"))

    assert done.runs > 5
    assert other.name == twin.name


def _is(found: object, expected: object) -> None:
    assert found == expected


async def test_what_is_left_of_crash_runs_refers_to_no_workflow() -> None:
    @workflow
    async def passing() -> str:
        return await charge("17")

    gc.collect()
    before = weakref.getweakrefcount(passing)
    gc.disable()  # what is left of them waits for it
    try:
        await crash_everywhere(passing())
        after = weakref.getweakrefcount(passing)
    finally:
        gc.enable()

    assert after == before


async def test_each_crash_run_has_the_users_own_tables_to_itself() -> None:
    seen: list[int] = []

    crashes = await crash_everywhere(books_twice(), check=lambda crashed: seen.append(crashed.result))

    assert set(seen) == {2}
    assert crashes.compared
