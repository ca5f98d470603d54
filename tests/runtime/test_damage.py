"""Rows that the disk has changed: their run is parked with the reason, and the others go on."""

from __future__ import annotations

import asyncio

import apsw
import pytest

from perdure import Client, RunDamaged, RunParked, Signal, step, workflow
from perdure.errors import StoreCorrupt
from perdure.testing import Harness

go = Signal[int]("go")
gate = asyncio.Event()


@pytest.fixture(autouse=True)
async def shut_gate() -> None:
    global gate
    gate = asyncio.Event()


@step
async def doubles(number: int) -> int:
    return 2 * number


@step
async def waits_at_gate() -> None:
    await gate.wait()


@workflow
async def adds(number: int) -> int:
    doubled = await doubles(number)
    await waits_at_gate()
    return doubled + await go.receive()


@workflow
async def sleeps(number: int) -> int:
    await asyncio.sleep(3_600)
    return number


def damage(harness: Harness, sql: str) -> None:
    """Change rows behind the store's back, as a disk might; their checksums stay as they were."""
    connection = apsw.Connection(harness.url.removeprefix("sqlite:///"))
    connection.execute(sql)
    assert connection.total_changes() == 1, "the test damaged nothing"
    connection.close()


async def begin_three(harness: Harness) -> None:
    for number in (1, 2, 3):
        await harness.engine.start(adds(number), id=f"adds-{number}")
    await harness.settle()


async def finish(harness: Harness, number: int) -> int:
    gate.set()
    run = await harness.engine.get(f"adds-{number}", adds)
    await run.send(go, 100)
    return await run.result()


SECOND = "(SELECT number FROM run WHERE id = 'adds-2')"


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (f"UPDATE record SET payload = X'35' WHERE run = {SECOND}", "record 0.*does not fit its checksum"),
        (f"UPDATE record SET digest = digest + 1 WHERE run = {SECOND}", "record 0.*checksum"),
        (f"UPDATE record SET key = CAST(X'FF' AS TEXT) WHERE run = {SECOND}", "adds-2.*damaged"),
        (f"UPDATE record SET seq = 4 WHERE run = {SECOND}", "record"),
    ],
)
async def test_a_run_with_a_damaged_record_is_parked_and_the_others_go_on(
    harness: Harness, sql: str, reason: str
) -> None:
    await begin_three(harness)
    await harness.kill()
    damage(harness, sql)

    await harness.open()
    run = await harness.engine.get("adds-2", adds)

    with pytest.raises(RunParked, match=reason) as raised:
        await run.result()
    assert isinstance(raised.value.__cause__, StoreCorrupt)
    assert [await finish(harness, number) for number in (1, 3)] == [102, 106]


async def test_a_run_whose_input_is_damaged_is_parked_and_the_others_go_on(harness: Harness) -> None:
    await begin_three(harness)
    await harness.kill()
    damage(harness, "UPDATE run SET input = X'5b395d' WHERE id = 'adds-2'")

    await harness.open()
    await harness.settle()

    with pytest.raises(RunDamaged, match=r"'adds-2'.*start does not fit"):
        await harness.engine.get("adds-2", adds)
    page = await harness.engine.list()
    assert {run.id: run.status for run in page.runs}["adds-2"].value == "parked"
    assert [await finish(harness, number) for number in (1, 3)] == [102, 106]


async def test_a_sleeper_that_is_damaged_is_parked_when_its_time_comes(harness: Harness) -> None:
    run = await harness.engine.start(sleeps(1), id="sleeper")
    await harness.settle()
    await harness.stop()
    damage(harness, "UPDATE run SET python = '3.1x' WHERE id = 'sleeper'")
    await harness.open()

    await harness.advance(3_601)

    assert [view.status.value for view in (await harness.engine.list()).runs] == ["parked"]
    assert run.id == "sleeper"


async def test_a_damaged_message_parks_its_run_and_the_others_get_theirs(harness: Harness) -> None:
    gate.set()
    await begin_three(harness)
    await harness.stop()
    async with Client(harness.url) as client:
        for number in (1, 2, 3):
            await client.send(f"adds-{number}", go, 100)
    damage(harness, f"UPDATE message SET payload = X'39' WHERE run = {SECOND}")

    await harness.open()
    results = [await (await harness.engine.get(f"adds-{number}", adds)).result() for number in (1, 3)]
    with pytest.raises(RunParked, match=r"message \d+ of run.*checksum"):
        await (await harness.engine.get("adds-2", adds)).result()

    assert results == [102, 106]


async def test_a_damaged_run_stays_parked_until_it_is_terminated(harness: Harness) -> None:
    await begin_three(harness)
    await harness.kill()
    damage(harness, f"UPDATE record SET payload = X'35' WHERE run = {SECOND}")
    await harness.open()
    run = await harness.engine.get("adds-2", adds)

    for ask in (run.resume, run.cancel):
        await ask()
        await harness.settle()
        with pytest.raises(RunParked, match="checksum"):
            await run.result()
    await run.terminate()
    await harness.settle()

    assert (await run.status()).value == "terminated"


async def test_doctor_names_what_is_damaged(harness: Harness) -> None:
    await begin_three(harness)
    damage(harness, f"UPDATE record SET payload = X'35' WHERE run = {SECOND}")
    damage(harness, "UPDATE run SET input = X'5b395d' WHERE id = 'adds-3'")

    wrongs = (await harness.engine.health()).wrongs

    assert len(wrongs) == 2
    assert any("record 0 of run number 2" in wrong for wrong in wrongs)
    assert any("'adds-3'" in wrong for wrong in wrongs)
