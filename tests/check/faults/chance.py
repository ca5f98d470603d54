"""Random numbers and ids."""

import os
import random
import secrets
import uuid
from random import Random, choice
from uuid import uuid4

from perdure import step, workflow


@step
async def note(text: str) -> None: ...


@workflow
async def throws_dice() -> int:
    return random.randint(1, 6)  # expect: random


@workflow
async def chooses(names: list[str]) -> str:
    return choice(names)  # expect: random


@workflow
async def makes_a_source() -> float:
    source = Random()  # expect: random
    return source.random()


@workflow
async def makes_a_token() -> str:
    return secrets.token_hex(8)  # expect: random


@workflow
async def asks_the_system() -> bytes:
    return os.urandom(8)  # expect: random


@workflow
async def makes_an_id() -> str:
    return str(uuid4())  # expect: uuid


@workflow
async def makes_many_ids() -> None:
    for key in [uuid.uuid1().hex for _ in range(3)]:  # expect: uuid
        await note(key)


def fresh_name(prefix: str = "order") -> str:
    return f"{prefix}-{uuid.uuid4()}"  # expect: uuid via names_orders > fresh_name


@workflow
async def names_orders() -> None:
    await note(fresh_name())


@workflow
async def shuffles(names: list[str]) -> None:
    random.shuffle(names)  # expect: random
    await note(names[0])


@workflow
async def retries_with_jitter() -> None:
    delays = map(lambda n: n * random.random(), range(3))  # expect: random via retries_with_jitter > lambda
    await note(str(list(delays)))
