"""Libraries that do I/O, with no step around them."""

import boto3
import httpx
import redis.asyncio as redis
import requests
import sqlalchemy as sa
from sqlalchemy.orm import Session

from perdure import Engine, step, workflow

session = requests.Session()
engine = Engine("sqlite:///shop.db")


@step
async def note(text: str) -> None: ...


@workflow
async def gets(url: str) -> int:
    return requests.get(url, timeout=3).status_code  # expect: library


@workflow
async def gets_in_a_session(url: str) -> int:
    return session.get(url).status_code  # expect: library


@workflow
async def gets_with_a_client(url: str) -> str:
    async with httpx.AsyncClient() as client:  # expect: library
        answer = await client.get(url)  # expect: library
    return answer.text


@workflow
async def lists_buckets() -> None:
    s3 = boto3.client("s3")  # expect: library
    await note(str(s3))


async def cached(store: redis.Redis, key: str) -> str | None:
    return await store.get(key)  # expect: library via uses_a_cache > cached


@workflow
async def uses_a_cache() -> str | None:
    return await cached(redis.Redis(), "order")  # expect: library


@workflow
async def asks_a_database() -> None:
    database = sa.create_engine("sqlite://")  # expect: library
    with Session(database) as orm:  # expect: library
        orm.commit()  # expect: library


@workflow
async def other(n: int) -> int:
    return n


@workflow
async def starts_by_the_engine() -> int:
    return await engine.run(other(3))  # expect: library
