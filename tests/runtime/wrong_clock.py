"""A worker for `test_wrong_clock`: says how wrong its clock is, and how long a run slept by the run's own."""

import asyncio
import faulthandler
import sys
import time

import psycopg

from perdure import Engine, now, workflow


@workflow
async def sleeps(seconds: float) -> float:
    begun = now()
    await asyncio.sleep(seconds)
    return (now() - begun).total_seconds()


async def main(url: str) -> None:
    with psycopg.connect(url.rpartition("schema=")[0].rstrip("?&")) as connection:
        ((server_s,),) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
    skew_s = time.time() - server_s
    async with Engine(url, workflows=[sleeps]) as engine:
        await engine.run(sleeps(0.2), id="fresh")
        slept_s = await (await engine.get("short", sleeps)).result()
    sys.stdout.write(f"{skew_s} {slept_s}\n")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(50, exit=True)  # says where it stands, before the test gives it up
    asyncio.run(main(sys.argv[1]))
