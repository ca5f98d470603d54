"""Threads, pools, the event loop, and waiting that blocks."""

import asyncio
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from time import sleep

from perdure import step, workflow


def slow() -> int:
    return int(time.time())


class Notifier(threading.Thread):
    pass


@step
async def note(text: str) -> None: ...


@workflow
async def goes_to_a_thread() -> int:
    return await asyncio.to_thread(slow)  # expect: thread


@workflow
async def goes_to_a_pool() -> int:
    with ThreadPoolExecutor() as pool:  # expect: thread
        return await asyncio.get_running_loop().run_in_executor(pool, slow)  # expect: thread


@workflow
async def goes_through_a_variable() -> None:
    loop = asyncio.get_event_loop()
    await loop.run_in_executor(None, slow)  # expect: thread


@workflow
async def starts_a_thread() -> None:
    threading.Thread(target=slow).start()  # expect: thread


@workflow
async def starts_its_own_kind() -> None:
    notifier = Notifier()  # expect: thread
    await note(str(notifier))


@workflow
async def locks() -> None:
    with threading.Lock():  # expect: thread
        await note("locked")


@workflow
async def waits_in_a_queue() -> None:
    box = queue.Queue()  # expect: thread
    await note(str(box))


@workflow
async def sleeps_hard() -> None:
    time.sleep(1)  # expect: blocking-sleep
    await note("awake")


@workflow
async def sleeps_in_a_loop(times: int) -> None:
    for _ in range(times):
        sleep(0.1)  # expect: blocking-sleep
        await note("awake")


@workflow
async def runs_a_loop() -> None:
    asyncio.run(asyncio.sleep(1))  # expect: loop


@workflow
async def drives_its_loop() -> None:
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(1))  # expect: loop


@workflow
async def looks_up_an_address() -> None:
    loop = asyncio.get_running_loop()
    await loop.getaddrinfo("localhost", 80)  # expect: network
