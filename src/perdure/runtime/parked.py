"""Runs that are parked because their code did not fit: tried again when a worker opens the store.

A deploy that is taken back, or mended, gets its runs going with no person to resume
them. The laws: a run that still does not fit stays as it was, and nothing is
written; one that is parked for a step that failed is left to a person. The first
page is tried before the engine is open, the others beside its other work, a page at
a time: opening takes no longer however many there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..codec.failures import failure_type
from ..core.records import Record, RunRow, Status
from ..errors import (
    BoundaryError,
    DefinitionError,
    JournalMismatch,
    NotAwaited,
    NotDecodable,
    OutsideRun,
    StoreCorrupt,
    StoreError,
    WorkflowNotRegistered,
)
from .definitions import WorkflowDefinition
from .driver import Driver

_log = logging.getLogger("perdure")

_PAGE = 200
_BY_CODE = {
    f"{kind.__module__}:{kind.__qualname__}"
    for kind in (
        JournalMismatch, BoundaryError, OutsideRun, NotAwaited, NotDecodable, DefinitionError,
        WorkflowNotRegistered,
    )
}  # fmt: skip


def is_parked_by_code(row: RunRow) -> bool:
    """Whether a run is parked because its code did not fit its journal: other code may go on with it."""
    return row.status == Status.PARKED and row.output is not None and failure_type(row.output) in _BY_CODE


class Parked:
    """Tries runs again that code had parked, with the code of this worker."""

    def __init__(self, driver: Driver, find: Callable[[str], WorkflowDefinition | None]) -> None:
        """`find` gives the workflow of a name; None when this worker does not know it."""
        self._driver = driver
        self._find = find
        self._trying: asyncio.Task[None] | None = None
        self._going = 0
        self._staying = 0

    async def retry(self) -> None:
        """Try the first of them now, and the others, if there are many, beside all else."""
        last = await self._try_page(0)
        if self._going:
            await self._driver.committer.drain()  # whoever asks for them now finds them running
        if last is not None:
            self._trying = asyncio.get_running_loop().create_task(self._try_others(last))

    def stop(self) -> None:
        """Try no more."""
        if self._trying is not None:
            self._trying.cancel()

    async def _try_others(self, last: int | None) -> None:
        self._driver.is_trying_parked = True
        try:
            while last is not None:
                await asyncio.sleep(0)  # others are served between two pages
                last = await self._try_page(last)
        finally:
            self._driver.is_trying_parked = False

    async def _try_page(self, after: int) -> int | None:
        """Try a page of runs, above the number `after`; give the last number, or None at the end."""
        driver = self._driver
        try:
            page = await driver.reads.wait(lambda store: store.parked_runs(after=after, limit=_PAGE))
            fitting = [row.number for row in page if is_parked_by_code(row) and await self._fits(row)]
            claimed = await self._claim(fitting)
        except StoreError as error:  # they stay as they are, and the worker serves the others
            driver.complain(error, "looking at parked runs")
            return None
        for number in sorted(claimed):
            driver.open_again(number)
        self._going += len(claimed)
        if len(page) == _PAGE:
            return page[-1].number
        if self._going or self._staying:
            _log.warning(
                "Of the runs that were parked because code did not fit their journals, %d go on with this "
                "code; %d still do not fit it and stay parked (`perdure deploy-check` says why).",
                self._going, self._staying,
            )  # fmt: skip
        return None

    async def _claim(self, numbers: list[int]) -> set[int]:
        """Those that no other worker has claimed meanwhile."""
        if not numbers:
            return set()
        driver = self._driver
        lease, now_ms = driver.lease, driver.clock.now_ms()
        return await driver.committer.wait_between(
            lambda store: store.claim_these(lease, numbers, now_ms=now_ms)
        )

    async def _fits(self, row: RunRow) -> bool:
        """Whether the code fits its journal."""
        definition = self._find(row.workflow)
        if definition is not None:
            try:
                records = await self._driver.reads.wait(lambda store: store.records(row.number))
            except StoreCorrupt:
                pass
            else:
                if self._replays(row, definition, records):
                    return True
        self._staying += 1
        return False

    def _replays(self, row: RunRow, definition: WorkflowDefinition, records: list[Record]) -> bool:
        """Replay it apart from all else; no command is let out."""
        driver = self._driver
        execution = driver.make_resident(row).execution
        with driver.turn:
            try:
                execution.foresee_patches(records)
                execution.begin(definition.body(row.input), definition.encode_result)
                execution.replay(records)
            except Exception:
                return False  # its reason is on disk already
            finally:
                execution.drop()
        return execution.outcome is None or execution.outcome.status is not Status.PARKED
