"""`@step(worker=…)` as it is written; what it does is in `tests/runtime/test_jobs.py`."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import DefinitionError, step, step_info


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"worker": "gpu", "transaction": True}, "do not go together"),
        ({"worker": ""}, "is not a tag"),
        ({"worker": 7}, "is not a tag"),
    ],
)
def test_what_cannot_work_is_refused_at_the_definition(options: Any, message: str) -> None:
    def anything() -> None: ...

    with pytest.raises(DefinitionError, match=message):
        step(**options)(anything)


async def test_outside_a_run_the_function_is_just_called() -> None:
    @step(worker="gpu")
    async def render(frame: int) -> str:
        return f"{frame}, attempt {step_info().attempt}"

    assert await render(3) == "3, attempt 1"
