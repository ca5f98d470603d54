"""The same faults behind classes, decorators, properties, generators and tables of functions."""

import functools
import time
import uuid
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from perdure import Update, step, workflow

move = Update[str, str]("move")


@step
async def note(text: str) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.source = time.time

    @property
    def now(self) -> float:
        return self.source()  # expect: clock via asks_a_property > Clock.now

    def __call__(self) -> float:
        return time.monotonic()  # expect: clock via calls_an_object > Clock.__call__

    @classmethod
    def zero(cls) -> float:
        return time.process_time()  # expect: clock via calls_a_class_method > Clock.zero

    @staticmethod
    def plain() -> float:
        return time.perf_counter()  # expect: clock via calls_a_static_method > Clock.plain


class Base:
    def key(self) -> str:
        return uuid.uuid4().hex  # expect: uuid via calls_what_is_inherited > Base.key


class Heir(Base):
    pass


class Numbered:
    def number(self) -> int:
        return uuid.uuid4().int  # expect: uuid via calls_the_base > Special.name > Numbered.number


class Special(Numbered):
    def name(self) -> str:
        return str(super().number())


@dataclass
class Bill:
    order: str
    number: str = ""

    def __post_init__(self) -> None:
        order = self.order
        self.number = order + uuid.uuid4().hex  # expect: uuid via bills > Bill > Bill.__post_init__


class Timer:
    async def __aenter__(self) -> "Timer":
        self.began = time.time()  # expect: clock via enters_a_timer > Timer.__aenter__
        return self

    async def __aexit__(self, *error: object) -> None: ...


def timed(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        began = time.time()  # expect: clock via is_timed > wrapper
        result = await function(*args, **kwargs)
        return result, began

    return wrapper


@timed
async def prepare(order: str) -> str:
    return order + uuid.uuid4().hex  # expect: uuid via is_timed > wrapper > prepare


@contextmanager
def stopwatch():
    yield time.time()  # expect: clock via holds_a_stopwatch > stopwatch


@asynccontextmanager
async def opened(name: str):
    with open(name) as file:  # expect: file via opens > opened
        yield file


async def ticks():
    while True:
        yield time.time()  # expect: clock via follows_ticks > ticks


def by_post() -> str:
    return uuid.uuid4().hex  # expect: uuid via chooses_from_a_table > by_post


def by_hand() -> str:
    return "by hand"


WAYS = {"post": by_post, "hand": by_hand}


@workflow
async def asks_a_property() -> None:
    if Clock().now > 3:
        await note("late")


@workflow
async def calls_an_object() -> None:
    clock = Clock()
    await note(str(clock()))


@workflow
async def calls_a_class_method() -> None:
    await note(str(Clock.zero()))


@workflow
async def calls_a_static_method() -> None:
    await note(str(Clock().plain()))


@workflow
async def calls_what_is_inherited() -> None:
    await note(Heir().key())


@workflow
async def calls_the_base() -> None:
    await note(Special().name())


@workflow
async def bills() -> None:
    await note(Bill("one").number)


@workflow
async def enters_a_timer() -> None:
    async with Timer() as timer:
        await note(str(timer))


@workflow
async def is_timed() -> None:
    await prepare("one")


@workflow
async def holds_a_stopwatch() -> None:
    with stopwatch() as began:
        await note(str(began))


@workflow
async def opens(name: str) -> None:
    async with opened(name) as file:
        await note(str(file))


@workflow
async def follows_ticks() -> None:
    async for tick in ticks():
        await note(str(tick))


@workflow
async def chooses_from_a_table(way: str) -> None:
    await note(WAYS[way]())


@workflow
async def answers() -> None:
    async def answer(place: str) -> str:
        return place + uuid.uuid4().hex  # expect: uuid via answers > answer

    move.handle(answer)
    await note("ready")


async def plainly() -> float:
    return time.time()  # expect: clock


made_by_a_call = workflow(name="made by a call")(plainly)


@workflow
async def walks_in_circles(n: int) -> int:
    return down(n)


def down(n: int) -> int:
    return up(n - 1) if n else 0


def up(n: int) -> int:
    print(time.time())  # expect: clock via walks_in_circles > down > up
    return down(n)
