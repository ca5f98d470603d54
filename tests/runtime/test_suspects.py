"""Runs that were under way in several deaths of their workers: one may be what kills, so they come apart."""

from __future__ import annotations

import asyncio

from perdure import step, workflow
from perdure.testing import Harness

SUSPECTS = [f"suspect {number}" for number in range(4)]


async def test_when_the_first_suspect_goes_on_the_others_are_put_off_on_disk(harness: Harness) -> None:
    due: list[list[str]] = []

    @step
    async def looks_who_is_due() -> None:
        rows = [harness.store.run_by_id(run_id) for run_id in SUSPECTS]
        due.append([row.id for row in rows if row and row.wake_at_ms <= harness.clock.now_ms()])
        await asyncio.Event().wait()

    @workflow
    async def may_be_deadly() -> None:
        await looks_who_is_due()

    for run_id in SUSPECTS:
        await harness.start(may_be_deadly(), id=run_id)
    for _ in range(2):
        await harness.until(lambda: harness.engine.running_steps == len(SUSPECTS))
        due.clear()
        await harness.kill()
        await harness.open()

    await harness.until(lambda: due)

    # Else a worker that dies in the first one would have died in all of them.
    assert [len(ids) for ids in due] == [1]
