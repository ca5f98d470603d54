"""Faults that a comment allows, each with its reason."""

import time
import uuid

from perdure import step, workflow


@step
async def note(text: str) -> None: ...


def stamp() -> str:
    return str(time.time())


@workflow
async def allows_a_line() -> None:
    print(time.time())  # perdure: allow[clock] only shown to people
    # perdure: allow[uuid] the journal does not hold it
    print(uuid.uuid4())
    print(
        uuid.uuid4(),
        time.time(),
    )  # perdure: allow[uuid, clock] both are only shown


@workflow
async def allows_a_way() -> None:
    print(stamp())  # perdure: allow[clock] the stamp is only shown
