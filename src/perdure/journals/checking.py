"""Every open run of a store against new code: which go on, which part from it, where and why.

The laws: the store is only read, a page at a time, and may have a worker meanwhile;
no step runs. Every run is replayed by itself. Runs of one shape may differ in a
value on which the code branches, in the times or the random numbers that it asks
for, so one cannot speak for another; grouped is only what was found.

What no journal tells, it does not look at: a step that is under way for the first
time has left nothing on disk with which the new call could be compared.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..core.ready import Ready
from ..core.records import Message, Record, RunRow, Status
from ..runtime.collector import collector
from ..runtime.definitions import WorkflowDefinition
from ..runtime.parked import is_parked_by_code
from ..stores.base import Store
from .parting import Parting, failure_of, parting_of
from .replayer import Replayer
from .underway import hand_over, stranded_child, stranded_step

PAGE = 1_000
IDS_KEPT = 5


@dataclass(slots=True)
class Group:
    """The runs that part from the code in one and the same way."""

    parting: Parting
    count: int = 0
    ids: list[str] = field(default_factory=list[str])
    """The first of them, or all."""


@dataclass(slots=True)
class Findings:
    """What a check of a store's open runs found."""

    runs: int = 0
    """How many were replayed."""
    compatible: int = 0
    """How many go on with this code."""
    mended: int = 0
    """Of those, how many are parked because another version of the code did not fit."""
    ending: int = 0
    """Of those, how many would end at once: the code has nothing left to wait for."""
    pythons: dict[str, int] = field(default_factory=dict[str, int])
    """How many runs were begun on each version of Python."""
    groups: dict[object, Group] = field(default_factory=dict[object, Group])

    def add(self, parting: Parting, run_id: str, *, ids_kept: int) -> None:
        """Count a run that parts from the code."""
        group = self.groups.setdefault(parting.kin, Group(parting))
        group.count += 1
        if len(group.ids) < ids_kept:
            group.ids.append(run_id)

    def ordered(self) -> list[Group]:
        """What `patched` does not help first, then by how many runs it is about."""
        return sorted(self.groups.values(), key=lambda group: (group.parting.is_patchable, -group.count))


class Checker:
    """Replays the open runs of a store against the workflows of new code, and keeps what it finds."""

    def __init__(self, definitions: Mapping[str, WorkflowDefinition], *, ids_kept: int = IDS_KEPT) -> None:
        self._definitions = definitions
        self._ids_kept = ids_kept
        self._ready = Ready()
        self._children: dict[int, list[RunRow]] = {}
        """Open children whose end is awaited, by the parent's number."""
        self._parted: set[int] = set()
        self.findings = Findings()

    def check(self, store: Store) -> Findings:
        """Replay all open runs of a store. Raises StoreError when it cannot be read."""
        after = 0
        with _relaxed_collector():
            while page := store.open_runs(after=after, limit=PAGE):
                attempted = store.attempted(after=after, until=page[-1][0].number)
                after = page[-1][0].number
                for row, records in page:
                    self._look(store, row, records, attempted=row.number in attempted)
            for number, children in self._children.items():
                self._look_again(store, number, children)
        return self.findings

    def _look(self, store: Store, row: RunRow, records: list[Record], *, attempted: bool) -> None:
        if row.parent is not None and row.parent_key and not row.parent_key.endswith("/end"):
            self._children.setdefault(row.parent, []).append(row)
        replayer, parting = self._replay(row, records)
        if replayer is not None:
            if parting is None and attempted:
                parting = stranded_step(replayer, store.attempts(row.number))
            if parting is None:
                parting = _hand_over(replayer, store.messages_for(row.number))
            if parting is None:
                parting = failure_of(replayer)
            replayer.close()
        if parting is not None and not _is_open(store, row.number):
            return  # it got on while it was looked at
        findings = self.findings
        findings.runs += 1
        findings.pythons[row.python] = findings.pythons.get(row.python, 0) + 1
        if parting is not None:
            findings.add(parting, row.id, ids_kept=self._ids_kept)
            self._parted.add(row.number)
            return
        findings.compatible += 1
        findings.ending += replayer is not None and replayer.execution.outcome is not None
        findings.mended += is_parked_by_code(row)

    def _replay(self, row: RunRow, records: list[Record]) -> tuple[Replayer | None, Parting | None]:
        definition = self._definitions.get(row.workflow)
        if definition is None:
            return None, Parting(
                "workflow", row.workflow, f"No workflow of the new code is called {row.workflow!r}.",
                proposal=f"Keep it until these runs have ended, or name its successor so: "
                f'@workflow(name="{row.workflow}").',
            )  # fmt: skip
        replayer = Replayer(row, records, definition, ready=self._ready)
        try:
            with self._ready:
                replayer.begin()
                replayer.deliver(records)
        except Exception as error:
            return replayer, parting_of(replayer, error)
        return replayer, None

    def _look_again(self, store: Store, number: int, children: list[RunRow]) -> None:
        """Look at a run once more, now that its open children are known."""
        row = store.run_by_number(number)
        if row is None or number in self._parted or not Status(row.status).is_open:
            return
        replayer, parting = self._replay(row, store.records(number))
        if replayer is None or parting is not None:
            return  # it got on while others were looked at
        parting = stranded_child(replayer, [child for child in children if _is_open(store, child.number)])
        if parting is not None:
            self.findings.compatible -= 1
            self.findings.add(parting, row.id, ids_kept=self._ids_kept)
        replayer.close()


def _hand_over(replayer: Replayer, messages: list[Message]) -> Parting | None:
    if messages:
        try:
            hand_over(replayer, messages)
        except Exception as error:
            return parting_of(replayer, error)
    return None


def _is_open(store: Store, number: int) -> bool:
    row = store.run_by_number(number)
    return row is not None and Status(row.status).is_open


@contextmanager
def _relaxed_collector() -> Generator[None]:
    collector.relax()
    try:
        yield
    finally:
        collector.restore()
