"""What a step may know of itself while it runs: `step_info()`."""

from __future__ import annotations

import json
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from ..errors import StepError
from ..stores.base import Store
from .clock import Clock


class Attempting(Protocol):
    """The attempt under way, as the runtime keeps it."""

    def info(self) -> StepInfo:
        """What the step may know of itself; made when it is first asked for."""
        ...

    def beat(self, details: bytes | None) -> None:
        """A heartbeat; from any thread."""
        ...


current_attempt: ContextVar[Attempting] = ContextVar("perdure_attempt")
"""Set while a step's function runs, and nowhere else."""


class PlainAttempt:
    """A step that is awaited outside a run: there is nothing to record."""

    def __init__(self, step: str, seed: bytes) -> None:
        self._step = step
        self._seed = seed

    def info(self) -> StepInfo:
        """As much as there is to know."""
        return StepInfo(
            self,
            run_id="",
            workflow="",
            step=self._step,
            key="",
            attempt=1,
            seed=self._seed,
            last_details=None,
        )

    def beat(self, details: bytes | None) -> None:
        """Nobody listens."""


class Lent(NamedTuple):
    """What a step with `transaction=True` has while it runs."""

    connection: Any
    store: Store
    clock: Clock


class StepInfo:
    """One attempt of a step, seen from inside it."""

    __slots__ = (
        "_attempting", "_drawn", "_last_details", "_lent", "_seed", "attempt", "key", "run_id", "step",
        "workflow",
    )  # fmt: skip

    def __init__(
        self,
        attempting: Attempting,
        *,
        run_id: str,
        workflow: str,
        step: str,
        key: str,
        attempt: int,
        seed: bytes,
        last_details: bytes | None,
    ) -> None:
        self._attempting = attempting
        self._lent: Lent | None = None
        self._drawn = 0
        self._seed = seed
        self._last_details = last_details
        self.run_id = run_id
        """The id of the run that asked for the step."""
        self.workflow = workflow
        """The name of the run's workflow."""
        self.step = step
        """The step's name."""
        self.key = key
        """The call's place in the run: `0/2/charge`."""
        self.attempt = attempt
        """1 for the first try. A try that a crash interrupted is not counted."""

    @property
    def idempotency_key(self) -> str:
        """32 hex digits that name this call: the same in every attempt and after every crash.

        No other call has it, in this store or another: it is the BLAKE2b hash of
        the call's key under 16 random bytes drawn when the run started.
        """
        return blake2b(self.key.encode(), key=self._seed, digest_size=16).hexdigest()

    @property
    def connection(self) -> Any:
        """Of a step with `transaction=True`: the connection whose transaction commits with the step's result.

        A `psycopg.Connection` on PostgreSQL, an `apsw.Connection` on SQLite. What is written
        by it is kept together with the recorded result, or not at all: exactly once. It may
        not be committed, rolled back, kept, or given to another thread; savepoints are fine.
        Raises StepError anywhere else.
        """
        return self.lent().connection

    def lent(self) -> Lent:
        """The connection, with the store that it is to. Raises StepError where there is none."""
        if self._lent is None:
            raise StepError(
                f"Step {self.step!r} has no connection: only a step with transaction=True has, while it runs "
                "in a run.",
                hint="Write @step(transaction=True); a test may `override` the step.",
            )
        return self._lent

    @property
    def is_in_transaction(self) -> bool:
        """Whether the function runs now, and has a connection."""
        return self._lent is not None

    def lend(self, lent: Lent | None) -> None:
        """Have a connection, or (None) have it no more; the store calls the step in between."""
        if lent is not None:
            self._drawn = 0
        self._lent = lent

    @property
    def has_drawn(self) -> bool:
        """Whether the function, when it was called last, drew random bytes: for each run that it starts."""
        return self._drawn > 0

    def draw(self) -> bytes:
        """32 random bytes, others each time; the same ones when the step's function is called again."""
        self._drawn += 1
        return blake2b(f"{self.key}/{self._drawn}".encode(), key=self._seed, digest_size=32).digest()

    @property
    def last_details(self) -> Any:
        """What the last `heartbeat(details)` of an earlier attempt said; None without one."""
        return None if self._last_details is None else json.loads(self._last_details)

    def heartbeat(self, details: Any = None) -> None:
        """Say that this attempt is alive, and how far it is.

        `details` is plain JSON data; it reaches the store with the next commit,
        and the next attempt as `last_details`. May be called from the step's thread.
        """
        self._attempting.beat(None if details is None else json.dumps(details, allow_nan=False).encode())

    def to_json(self) -> bytes:
        """All that it knows, for another process."""
        details = None if self._last_details is None else self._last_details.decode()
        known = (self.run_id, self.workflow, self.step, self.key, self.attempt, self._seed.hex(), details)
        return json.dumps(known).encode()

    @classmethod
    def from_json(cls, data: bytes, attempting: Attempting) -> StepInfo:
        """What another process gave by `to_json`; it beats through `attempting`."""
        run_id, workflow, step, key, attempt, seed, details = json.loads(data)
        return cls(
            attempting,
            run_id=run_id,
            workflow=workflow,
            step=step,
            key=key,
            attempt=attempt,
            seed=bytes.fromhex(seed),
            last_details=None if details is None else details.encode(),
        )
