"""Starts runs: nearly all have a new id, and are written by one statement; the others one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...core.records import Message, MessageKind, NewRun, RunRow, Status
from ..base import StartOutcome
from ..starts import decide_start
from .arrays import numbers, payloads, texts
from .link import Link
from .messages import Sent, send_messages
from .pipeline import Answer

_TRIES_MAX = 10


class Starts:
    """The starts of one batch, on their way."""

    def __init__(self, link: Link, starts: Sequence[NewRun], *, lease: int, continued: bool) -> None:
        """Send those whose ids are new. `continued`: the batch ends runs that continue as new."""
        self._link = link
        self._starts = starts
        self._lease = lease
        if continued:
            link.run("leave_continued", texts(start.id for start in starts))
        self._written = self._insert("insert_continued_runs" if continued else "insert_first_runs", starts)

    def _insert(self, name: str, starts: Sequence[NewRun]) -> Answer:
        return self._link.run(
            name, texts(start.id for start in starts), texts(start.workflow for start in starts),
            numbers(start.deadline_ms for start in starts), numbers(start.parent for start in starts),
            texts(start.parent_key for start in starts), texts(start.on_parent_close for start in starts),
            numbers(start.created_at_ms for start in starts), texts(start.python for start in starts),
            payloads(start.seed for start in starts), payloads(start.input for start in starts), self._lease,
        )  # fmt: skip

    def finish(self) -> list[StartOutcome]:
        """What became of each, in order; writes their tags and messages too."""
        written = {row[1]: row for row in self._written.fetchall()}
        outcomes: list[StartOutcome | None] = []
        for start in self._starts:
            row = written.pop(start.id, None)
            outcomes.append(None if row is None else self._started(start, row))
        sent: list[Message] = []
        rest = [place for place, outcome in enumerate(outcomes) if outcome is None]
        if rest:
            latest = self._latest(self._starts[place].id for place in rest)
            for place in rest:
                outcomes[place] = self._start_one(self._starts[place], latest, sent)
        done = [outcome for outcome in outcomes if outcome is not None]
        self._add_tags(done)
        send_messages(self._link, sent, lease=0)
        # What a run before had: each request in it was taken once already, by that run.
        if handed_on := self._handed_on(done):
            Sent(self._link, handed_on, lease=0)
        return done

    def _started(self, start: NewRun, row: tuple[Any, ...]) -> StartOutcome:
        number, _, *generation = row
        if self._link.witness is None:
            self._link.witness = ("witness_run", number, start.seed)
        run = RunRow(
            number, start.id, generation[0] if generation else 1, start.workflow, Status.RUNNING, start.input,
            None, start.seed, 0, 0, start.deadline_ms, start.parent, start.parent_key, start.on_parent_close,
            start.created_at_ms, None, start.python, self._lease,
        )  # fmt: skip
        return StartOutcome("started", run)

    def _latest(self, ids: Iterable[str]) -> dict[str, RunRow]:
        rows = self._link.rows("latest_of_ids", texts(sorted(set(ids))))
        return {row.id: row for row in map(RunRow._make, rows)}

    def _start_one(self, start: NewRun, latest: dict[str, RunRow], sent: list[Message]) -> StartOutcome:
        for _ in range(_TRIES_MAX):
            run = latest.get(start.id)
            if run is not None:
                outcome = decide_start(start, run, self._find_origin(run))
                if outcome is not None:
                    if outcome.reason == "cancelling":
                        sent.append(_ask_to_cancel(start, run.number))
                    return outcome
                self._link.rows("mark_older", run.number)
            rows = self._insert("insert_continued_runs", [start]).fetchall()
            if rows:
                outcome = self._started(start, rows[0])
                latest[start.id] = outcome.run
                return outcome
            # Another process has started, or removed, a run of this id since we looked.
            latest.pop(start.id, None)
            latest.update(self._latest([start.id]))
        raise AssertionError(f"run {start.id!r} could be neither started nor found")

    def _find_origin(self, run: RunRow) -> RunRow | None:
        """Go back over the generations that `run` continues."""
        origin = run
        while origin.generation > 1:
            rows = self._link.rows("run_of_generation", origin.id, origin.generation - 1)
            if not rows:
                return None
            before = RunRow._make(rows[0])
            if before.status != Status.CONTINUED:
                break
            origin = before
        return origin

    def _add_tags(self, outcomes: Sequence[StartOutcome]) -> None:
        tags = [
            (outcome.run.number, key, value)
            for start, outcome in zip(self._starts, outcomes, strict=True)
            if start.tags and outcome.verdict == "started"
            for key, value in start.tags
        ]
        if tags:
            runs, keys, values = zip(*tags, strict=True)
            self._link.run("insert_tags", numbers(runs), texts(keys), texts(values))

    def _handed_on(self, outcomes: Sequence[StartOutcome]) -> list[Message]:
        return [
            message._replace(run=outcome.run.number)
            for start, outcome in zip(self._starts, outcomes, strict=True)
            if start.messages and outcome.verdict == "started"
            for message in start.messages
        ]


def _ask_to_cancel(start: NewRun, number: int) -> Message:
    # The seed is the start's own: one that is tried again leaves no second message.
    request = f"start/{start.seed.hex()}"
    return Message(0, number, MessageKind.CANCEL, "cancel", None, request, start.created_at_ms)
