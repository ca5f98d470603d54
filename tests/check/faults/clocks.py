"""Clocks, by every road that leads to them."""

import datetime as dt
import time
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from time import monotonic as ticks

import perdure
from perdure import step, workflow


@dataclass
class Stamp:
    what: str
    at: datetime = field(default_factory=datetime.now)  # expect: clock via stamps > Stamp


@step
async def note(text: str) -> None: ...


@workflow
async def asks_the_time() -> float:
    return time.time()  # expect: clock


@workflow
async def asks_through_an_alias() -> None:
    if ticks() > 100:  # expect: clock
        await note("late")


@perdure.workflow(name="today")
async def asks_the_date() -> None:
    await note(str(date.today()))  # expect: clock


@workflow
async def asks_in_utc() -> None:
    await note(f"{dt.datetime.now(dt.UTC):%Y}")  # expect: clock


@workflow
async def stamps() -> None:
    made = Stamp("order")
    await note(made.what)


@workflow
async def keeps_the_function() -> None:
    clock = time.perf_counter
    await note(str(clock()))  # expect: clock


@workflow
async def binds_the_function() -> None:
    clock = partial(datetime.now, dt.UTC)
    await note(str(clock()))  # expect: clock


@workflow
async def hands_the_function_over(times: list[str]) -> list[float]:
    return sorted(times, key=lambda _: time.monotonic())  # expect: clock via hands_the_function_over > lambda


async def wait_for(moment: float, clock=time.time) -> None:
    while clock() < moment:  # expect: clock via waits > wait_for
        await note("not yet")


@workflow
async def waits() -> None:
    await wait_for(1_900_000_000)


@workflow
async def formats_the_local_time() -> None:
    await note(time.strftime("%H", time.localtime()))  # expect: clock
