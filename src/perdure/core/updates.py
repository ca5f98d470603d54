"""Updates: requests that a run answers, each in a task of its own.

A request is judged before it is recorded: the validator sees the value and the
run's variables, and may only raise. What it refuses leaves no record. What is
accepted is recorded, then handled, and answered when the handler is done.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Protocol

import msgspec

from ..errors import RunClosed, UpdateRefused
from .commands import AnswerUpdate
from .host import Decode, RunFacts
from .loop import RunLoop, RunTask


class UpdateHandler(msgspec.Struct, frozen=True):
    """What answers an update: made by the `Update` block."""

    handle: Callable[[Any], Coroutine[Any, Any, Any]]
    validate: Callable[[Any], None] | None
    decode: Decode
    encode: Callable[[Any], bytes]


class Updatable(Protocol):
    """The part of an execution that updates need."""

    facts: RunFacts
    loop: RunLoop

    def answer_update(self, answer: AnswerUpdate) -> None: ...
    def encode_failure(self, error: BaseException) -> bytes: ...


class Updates:
    """The update handlers of one run, and what they have answered."""

    __slots__ = ("_handlers", "_run", "_running", "_waiting", "answered")

    def __init__(self, run: Updatable) -> None:
        self._run = run
        self._handlers: dict[str, UpdateHandler] = {}
        self._running: dict[str, RunTask] = {}
        self._waiting: list[tuple[str, str, bytes, str]] = []
        self.answered: list[AnswerUpdate] = []
        """All answers given, so that a replay can give again one that was lost."""

    def handle(self, name: str, handler: UpdateHandler) -> None:
        """Answer updates of this name from now on."""
        self._handlers[name] = handler
        waiting, self._waiting = self._waiting, []
        for update in waiting:
            self.accept(*update)

    def judge(self, name: str, payload: bytes) -> None:
        """Refuse a request that no handler takes or that the validator raises on.

        Raises UpdateRefused; nothing has been recorded then.
        """
        handler = self._handlers.get(name)
        run_id = self._run.facts.id
        if handler is None:
            raise UpdateRefused(
                f"Run {run_id!r} has no handler for update {name!r} now.",
                run_id=run_id,
                hint="Register one at the workflow's start: `update.handle(function)`.",
            )
        try:
            value = handler.decode(payload)
            if handler.validate is not None:
                handler.validate(value)
        except Exception as error:
            raise UpdateRefused(
                f"Run {run_id!r} refused update {name!r}: {type(error).__name__}: {error}. "
                "Nothing was recorded.",
                run_id=run_id,
            ) from error

    def accept(self, name: str, request: str, payload: bytes, path: str) -> None:
        """Start the handler of a recorded update."""
        handler = self._handlers.get(name)
        if handler is None:
            # It was there when the update was judged: the code has moved it, and will come to it.
            self._waiting.append((name, request, payload, path))
            return
        coroutine = handler.handle(handler.decode(payload))
        task = RunTask(coroutine, loop=self._run.loop, path=path, context=copy_context())
        self._running[request] = task
        task.add_done_callback(lambda done: self._answer(request, handler, done))

    def _answer(self, request: str, handler: UpdateHandler, task: Any) -> None:
        self._running.pop(request, None)
        if self._run.loop.dead:
            return
        try:
            answer = AnswerUpdate(request, True, handler.encode(task.result()))
        except BaseException as error:  # also CancelledError: whoever asked must hear of it
            answer = AnswerUpdate(request, False, self._run.encode_failure(error))
        self._say(answer)

    def _say(self, answer: AnswerUpdate) -> None:
        self.answered.append(answer)
        self._run.answer_update(answer)

    def refuse_unfinished(self) -> None:
        """The run ends: whoever still waits is told so."""
        run_id = self._run.facts.id
        for request in [*self._running, *(request for _, request, _, _ in self._waiting)]:
            error = RunClosed(f"Run {run_id!r} ended before it answered the update.", run_id=run_id)
            self._say(AnswerUpdate(request, False, self._run.encode_failure(error)))
        self._running.clear()
