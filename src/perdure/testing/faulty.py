"""A store that fails when a test says so. It wraps a real one, and never invents a result.

Faults are kept in a line: each commit takes the first. What a test does not
plan goes through untouched.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import StoreError, StoreFull, StoreUnavailable
from ..stores.base import Batch, Committed, Lease, Store

_LONGEST_BLOCK_S = 60.0


class FaultyStore:
    """A real store whose commits can fail, be held up, or end for good. All else is the store's own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        """The real one."""
        self._faults: deque[tuple[str, StoreError]] = deque()
        self._gate: threading.Event | None = None
        """What commits wait for; None when they need not."""
        self._killed = False
        self.commits = 0
        """How many commits reached the store."""
        self.held_up = False
        """Whether a commit waits now for `release_commits`."""
        self.before_commit: Callable[[Batch], None] = lambda batch: None
        """Sees each batch on the writer's thread before it is written; for example to die there."""
        self.after_commit: Callable[[Batch], None] = lambda batch: None
        """The same once it is on disk, before anybody hears of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    # -- what a test may ask for -----------------------------------------------------------------

    def fail_before_commit(self, error: StoreError | None = None, *, times: int = 1) -> None:
        """The next commits write nothing and raise."""
        failure = error or StoreUnavailable("The disk answered with an error; nothing was written.")
        self._faults.extend([("before", failure)] * times)

    def fail_after_commit(self, error: StoreError | None = None) -> None:
        """The next commit is written, and raises all the same: its caller cannot know."""
        failure = error or StoreUnavailable("The disk answered with an error after it had written.")
        self._faults.append(("after", failure))

    def fill_up(self, *, times: int = 1) -> None:
        """The next commits find no space."""
        self.fail_before_commit(StoreFull("The store is full; nothing was written."), times=times)

    def hold_up_commits(self) -> None:
        """Commits wait, as on a disk that stalls, until `release_commits`."""
        self._gate = self._gate or threading.Event()

    def release_commits(self) -> None:
        """Let the commits that wait go on."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set()

    def kill(self) -> None:
        """From now on nothing reaches the store, as if the process had died."""
        self._killed = True
        self.release_commits()

    # -- the store's verbs that may fail ---------------------------------------------------------

    def commit(self, lease: Lease, batch: Batch) -> Committed:
        """Write as the store does, or fail as it was told to."""
        self.before_commit(batch)
        gate = self._gate
        self.held_up = gate is not None
        if gate is not None and not gate.wait(_LONGEST_BLOCK_S):
            raise AssertionError("the test held up a commit and never released it")
        self.held_up = False
        if self._killed:
            raise StoreUnavailable("The test has killed this worker; nothing was written.")
        when, error = self._faults.popleft() if self._faults else ("", None)
        if when == "before" and error is not None:
            raise error
        committed = self.store.commit(lease, batch)
        self.commits += 1
        self.after_commit(batch)
        if error is not None:
            raise error
        return committed

    def release(self, lease: Lease) -> None:
        """Give the lease back; who was killed cannot."""
        if not self._killed:
            self.store.release(lease)
