"""What an execution asks itself when its code is through: what to undo, what the error was, who was heard."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Iterable, Mapping
from typing import Any, cast

from ..errors import BoundaryError
from .commands import Unheard


async def undo_all(calls: list[Any]) -> None:
    """Await the registered undo calls, the last one first; the first that fails ends it."""
    while calls:
        await calls.pop()


def holds(error: BaseException, wanted: BaseException) -> bool:
    """Whether `error` is `wanted`, or a group with it inside."""
    if error is wanted:
        return True
    if not isinstance(error, BaseExceptionGroup):
        return False
    # isinstance does not tell what is inside; it is never anything but this.
    group = cast("BaseExceptionGroup[BaseException]", error)
    return any(holds(inner, wanted) for inner in group.exceptions)


def heed(complaints: Iterable[Mapping[str, Any]], run_id: str) -> tuple[Exception | None, list[Unheard]]:
    """What asyncio complained of to the run's loop: what stops the run, and what must only be said."""
    broken: Exception | None = None
    unheard: list[Unheard] = []
    for complaint in complaints:
        error = complaint.get("exception")
        if error is None:
            continue
        if complaint.get("message") != "a callback raised":
            unheard.append(Unheard(error))
        elif isinstance(error, Exception):
            broken = error
        else:
            broken = BoundaryError(f"A callback of run {run_id!r} raised {error!r}.")
    return broken, unheard


def unheard_failures(tasks: Iterable[Task[Any]]) -> list[Unheard]:
    """Of a run that ends: the errors of tasks that nobody awaited."""
    return [
        Unheard(error)
        for task in tasks
        if getattr(task, "_log_traceback", False) and (error := task.exception()) is not None
    ]
