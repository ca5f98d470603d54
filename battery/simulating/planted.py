"""Engines with a bug in them. The battery must catch each; else it shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from perdure.core.execution import Execution
from perdure.core.records import Kind, Record
from perdure.runtime.recovery import Recovery

from ..planted import (
    beginning_a_key_at_once,
    counting_events_as_done_early,
    forgetting_what_waits_in_a_join,
    forgetting_windows,
    keeping_what_failed,
    losing_what_is_given_up,
    replaced,
    without_the_fence,
    writing_without_the_mark,
)
from .engine import SimulatedCommitter, SimulatedEngine
from .world import Simulated, simulate


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug, and how to play with it."""

    what: str
    play: Callable[[int], Simulated]

    def simulate(self, seed: int) -> Simulated:
        return self.play(seed)


def _play_without_the_fence(seed: int) -> Simulated:
    with without_the_fence():
        return simulate(seed)


# -- what is not on disk is acknowledged ----------------------------------------------------------


class _EagerCommitter(SimulatedCommitter):
    """Feeds records back to their runs before they are written."""

    def _hand_over(self, group: Any) -> bool:
        with self._turn:
            self._deliver(group.residents, group.batch.records, group.values)
        # They are written all the same, and not delivered again.
        group.residents = [None] * len(group.residents)
        return super()._hand_over(group)


@contextmanager
def delivering_early() -> Iterator[None]:
    """Records are fed back to their runs before they are written."""
    with replaced(SimulatedEngine, make_committer=_EagerCommitter):
        yield


def _play_delivering_early(seed: int) -> Simulated:
    with delivering_early():
        return simulate(seed)


# -- a replay looks ahead --------------------------------------------------------------------------


def _replay_looking_ahead(self: Execution, records: Sequence[Record]) -> None:
    _ahead[id(self)] = {record.key: record for record in records if record.kind == Kind.STEP}
    try:
        _replay(self, records)
    finally:
        del _ahead[id(self)]


def _call_step_looking_ahead(self: Execution, name: str, digest: int, decode: Any, call: object) -> Any:
    future = _call_step(self, name, digest, decode, call)
    pending = next(reversed(self._pending.values()), None)
    record = _ahead.get(id(self), {}).get(pending.key) if pending is not None else None
    if record is not None and pending is not None and not future.done():
        future.set_result(decode(record.payload or b""))
    return future


_ahead: dict[int, dict[str, Record]] = {}
_replay = Execution.replay
_call_step = Execution.call_step


def _play_looking_ahead(seed: int) -> Simulated:
    with looking_ahead():
        return simulate(seed)


@contextmanager
def looking_ahead() -> Iterator[None]:
    """A call whose result is on record has it at once, before its turn."""
    with replaced(Execution, replay=_replay_looking_ahead, call_step=_call_step_looking_ahead):
        yield


# -- two claims bring the same run -----------------------------------------------------------------


def _was_claimed_by_this_alone(self: Recovery, numbers: list[int], claimed: set[int] | Exception) -> None:
    self._claimed.difference_update(numbers)
    _was_claimed(self, numbers, claimed)


_was_claimed = Recovery._was_claimed


def _play_forgetting_the_other_claim(seed: int) -> Simulated:
    with replaced(Recovery, _was_claimed=_was_claimed_by_this_alone):
        return simulate(seed, runs=12, size=20, workers=2)


def _with_events(planted: Callable[[], AbstractContextManager[None]]) -> Callable[[int], Simulated]:
    def play(seed: int) -> Simulated:
        with planted():
            return simulate(seed, events=EVENTS)

    return play


EVENTS = 24
OF_EVENTS = (
    Planted("an event counts as done when it is begun", _with_events(counting_events_as_done_early)),
    Planted("an event does not wait for the one of its key before it", _with_events(beginning_a_key_at_once)),
    Planted("what a failed handler has written is kept", _with_events(keeping_what_failed)),
    Planted("a handler's writes are kept without their mark", _with_events(writing_without_the_mark)),
    Planted("the windows of a lane are not kept with its place", _with_events(forgetting_windows)),
    Planted("what waits in a join is not kept with its place", _with_events(forgetting_what_waits_in_a_join)),
    Planted("an event that is given up is not parked", _with_events(losing_what_is_given_up)),
)
PLANTED = (
    Planted("a commit does not look at the fence", _play_without_the_fence),
    Planted("records are delivered before they are on disk", _play_delivering_early),
    Planted("a recorded result is delivered before its turn in a replay", _play_looking_ahead),
    Planted("a run that two claims were to bring is left alone", _play_forgetting_the_other_claim),
    *OF_EVENTS,
)
"""Those that the simulation catches. Keys that count are caught by the edits of row 25."""
