"""What a newcomer does in the first hour, where it once went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure import Client, Retry, RunParked, step, workflow
from perdure.testing import Harness

_broken = {"the printer"}


@step(retry=Retry(attempts=1))
async def print_label(printer: str) -> str:
    if printer in _broken:
        raise OSError(f"{printer} is out of paper.")
    return f"printed by {printer}"


@workflow
async def label(printer: str) -> str:
    return await print_label(printer)


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_the_result_may_be_awaited_as_soon_as_a_run_is_resumed(tmp_path: Path, through: str) -> None:
    _broken.add("the printer")
    async with Harness(tmp_path / "labels.db") as harness, Client(harness.url) as client:
        await harness.engine.start(label("the printer"), id="label")
        run = await (harness.engine if through == "engine" else client).get("label", label)
        with pytest.raises(RunParked):
            await run.result()
        _broken.clear()

        await run.resume()
        result = await run.result()

        assert result == "printed by the printer"


async def test_the_error_of_a_parked_run_ends_with_one_full_stop(tmp_path: Path) -> None:
    _broken.add("the printer")
    async with Harness(tmp_path / "labels.db") as harness:
        run = await harness.engine.start(label("the printer"), id="label")

        with pytest.raises(RunParked) as parked:
            await run.result()

        assert ".." not in str(parked.value)
