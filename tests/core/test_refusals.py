"""What workflow code may not do: it is told so, and the worker stays clean."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perdure import step
from perdure.core.ready import Ready
from perdure.errors import BoundaryError

from .harness import Status, Trial, live


@step
def same(value: Any) -> Any:
    return value


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


REACHES_OUT: dict[str, Callable[[], Any]] = {
    "to_thread": lambda: asyncio.to_thread(print),
    "run_in_executor": lambda: loop().run_in_executor(None, print),
    "open_connection": lambda: asyncio.open_connection("127.0.0.1", 1),
    "start_server": lambda: asyncio.start_server(print, "127.0.0.1", 0),
    "create_subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "create_subprocess_shell": lambda: asyncio.create_subprocess_shell("true"),
    "getaddrinfo": lambda: loop().getaddrinfo("localhost", 1),
    "sock_recv": lambda: loop().sock_recv(None, 1),  # type: ignore[arg-type]
    "add_reader": lambda: loop().add_reader(0, print),
    "add_signal_handler": lambda: loop().add_signal_handler(signal.SIGUSR1, print),
    "call_soon_threadsafe": lambda: loop().call_soon_threadsafe(print),
    "run_until_complete": lambda: loop().run_until_complete(asyncio.Future(loop=loop())),
    "set_task_factory": lambda: loop().set_task_factory(None),
}


@pytest.mark.parametrize("name", REACHES_OUT)
def test_what_reaches_outside_is_refused_and_says_where_it_belongs(name: str) -> None:
    async def body() -> None:
        await REACHES_OUT[name]()

    trial = live(body)

    assert isinstance(trial.error, BoundaryError)
    assert "@step" in str(trial.error)


@pytest.mark.parametrize("how", ["run", "Runner"])
def test_a_loop_inside_the_loop_is_refused_by_asyncio(how: str) -> None:
    async def nothing() -> None: ...

    async def body() -> None:
        coroutine = nothing()
        try:
            if how == "run":
                asyncio.run(coroutine)
            else:
                asyncio.Runner().run(coroutine)
        finally:
            coroutine.close()

    trial = live(body)

    assert "running event loop" in str(trial.error)


def test_a_step_called_from_a_callback_is_refused() -> None:
    async def body() -> None:
        loop().call_soon(lambda: same(1).send(None))
        await asyncio.sleep(1)

    with pytest.raises(BoundaryError, match="from a callback"):
        live(body)


@pytest.mark.parametrize("error", [ValueError("oh"), asyncio.CancelledError(), GeneratorExit()], ids=repr)
def test_a_callback_that_raises_stops_the_run(error: BaseException) -> None:
    def burst() -> None:
        raise error

    async def body() -> None:
        loop().call_later(1, burst)
        await asyncio.sleep(2)
        await same("not reached")

    trial = Trial().begin(body)

    with pytest.raises((ValueError, BoundaryError)):
        trial.tick()
    assert trial.open == {}


def test_a_call_that_was_never_awaited_stops_the_run_before_any_new_effect() -> None:
    async def body() -> None:
        await same(1)
        same("forgotten")
        await same(2)

    trial = Trial().begin(body)

    with pytest.raises(BoundaryError, match=r"called same\('forgotten'\) and never awaited it") as refused:
        trial.answer("0/0/same")
    assert "resume the run" in refused.value.hint
    assert trial.open == {}


def test_an_error_that_drops_a_call_on_its_way_is_the_one_told_of() -> None:
    async def body() -> None:
        await asyncio.gather(same(1), wrong())  # noqa: F821

    trial = live(body)

    assert (trial.status, type(trial.error)) == (Status.FAILED, NameError)


def test_a_coroutine_of_ones_own_that_is_never_awaited_is_left_to_python() -> None:
    async def mine() -> None:
        await same("never asked for")

    async def body() -> str:
        mine()
        return "unaware"

    with pytest.warns(RuntimeWarning, match="was never awaited"):
        trial = live(body)

    assert trial.result == "unaware"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["task", "callback", "timer"])
def test_an_interrupt_escapes_and_leaves_the_thread_clean(error: type[BaseException], where: str) -> None:
    def burst() -> None:
        raise error

    async def body() -> None:
        asyncio.create_task(asyncio.sleep(0))  # noqa: RUF006  # something that is ready when it strikes
        if where == "callback":
            loop().call_soon(burst)
            await asyncio.sleep(5)
        elif where == "timer":
            loop().call_later(1, burst)
            await asyncio.sleep(5)
        burst()

    hooks = sys.get_asyncgen_hooks()
    trial = Trial()

    with pytest.raises(error):
        trial.begin(body).tick()

    assert sys.get_asyncgen_hooks() == hooks
    assert trial.ready == Ready()
    assert trial.ready.pumping is None
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    trial.drop()


async def test_a_run_pumped_inside_another_loop_gives_it_back() -> None:
    outer = asyncio.get_running_loop()
    hooks = sys.get_asyncgen_hooks()

    async def body() -> bool:
        return asyncio.get_running_loop() is outer

    trial = live(body)

    assert trial.result is False
    assert asyncio.get_running_loop() is outer
    assert sys.get_asyncgen_hooks() == hooks


def test_a_task_of_what_is_no_coroutine_is_a_type_error() -> None:
    async def body() -> str:
        try:
            asyncio.create_task(12)  # type: ignore[arg-type]  # noqa: RUF006
        except TypeError:
            return str(await same("goes on"))
        return ""

    assert live(body).result == "goes on"
