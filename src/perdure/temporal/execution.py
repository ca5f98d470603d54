"""The core's execution of a run on Temporal: what Temporal keeps, or limits, it asks of Temporal."""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable
from typing import Any, TypeVar

from temporalio import workflow

from ..codec import failures
from ..core.execution import Execution
from ..core.host import Decode, RunFacts
from ..core.ready import Ready
from ..errors import BoundaryError
from .payloads import OUR_KEYS, fit

T = TypeVar("T")


class HostedExecution(Execution):
    """An execution whose patches Temporal keeps, as markers in its history."""

    __slots__ = ("_temporal",)

    def __init__(self, facts: RunFacts, ready: Ready) -> None:
        super().__init__(facts, ready=ready, failures=failures)
        self._temporal = asyncio.get_running_loop()

    def call_step(self, name: str, digest: int, decode: Decode, call: Any) -> asyncio.Future[Any]:
        if call.definition.place == "transaction":
            raise BoundaryError(
                f"Run {self.facts.id!r} calls step {name!r}, which has transaction=True, and Temporal keeps "
                "its runs in no database that a step could write to.",
                hint="Make it a step without transaction=True, whose effect bears being made twice.",
            )
        fit(call.data, call.describe())
        return super().call_step(name, digest, decode, call)

    def call_child(
        self, name: str, digest: int, decode: Decode, call: Any, *, apart: bool, options: object = None
    ) -> tuple[str, asyncio.Future[Any]]:
        fit(call.input(), call.describe())
        return super().call_child(name, digest, decode, call, apart=apart, options=options)

    def publish(self, state: str, payload: bytes) -> None:
        if state in OUR_KEYS:
            raise BoundaryError(
                f"Run {self.facts.id!r} publishes state {state!r}, a name that is Perdure's own on Temporal.",
                hint="Give the state another name.",
            )
        super().publish(state, fit(payload, f"state {state!r}"))

    def patched(self, name: str) -> bool:
        self._may_act()
        if self._patches is None:
            self._patches = {}
        if name not in self._patches:
            self._patches[name] = self._on_temporals_loop(workflow.patched, name)
        return self._patches[name]

    def _on_temporals_loop(self, ask: Callable[[str], T], name: str) -> T:
        # Temporal knows the workflow that asks by the running loop, and here that is the run's own.
        own = _get_running_loop()
        _set_running_loop(self._temporal)
        try:
            return ask(name)
        finally:
            _set_running_loop(own)
