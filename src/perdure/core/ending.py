"""What an execution asks itself when its code is through: what to undo, and what the error was."""

from __future__ import annotations

from typing import Any, cast


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
