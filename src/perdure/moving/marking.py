"""The two stores of a move, opened, and what their marks say of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..errors import StoreError
from ..runtime.clock import SystemSource, machine_ms
from ..stores.base import MoveMark, RunQuery, Store
from ..stores.moves import closed, in_use, not_empty
from ..stores.opening import open_closed_store


@contextmanager
def opened(url: str, *, create: bool) -> Generator[Store]:
    """A store, though a move may have closed it. Raises StoreError."""
    store = open_closed_store(url, create=create)
    try:
        yield store
    finally:
        store.close()


def new_mark(target: Store) -> MoveMark:
    """The mark of a source whose move begins."""
    return MoveMark("moving", SystemSource().bytes(16).hex(), 1, target.address, machine_ms())


def change(store: Store, before: MoveMark | None, after: MoveMark | None) -> None:
    """Change a mark, and see that it was changed. Raises StoreError; nothing is then written."""
    store.mark_move(before, after, now_ms=machine_ms())
    # A server that crashed in the midst of it may not know what became of its transaction.
    found = store.move_mark()
    if found != after:
        raise StoreError(
            f"The mark of store '{store.url}' was changed, and reads {found} where it should be {after}.",
            hint="Run the same `perdure move` again.",
        )


def refuse_workers(store: Store) -> None:
    """Raise StoreInUse if workers are alive. A first look: `Store.mark_move` looks again as it writes."""
    alive = store.workers(now_ms=machine_ms() + store.clock_offset_ms())
    if alive:
        raise in_use([(row.worker, row.process) for row in alive], store.url)


def refuse_runs(target: Store, there: MoveMark | None) -> None:
    """Raise StoreError if a target that is open has runs. A first look, too."""
    if (there is None or not there.is_closed) and target.list_runs(RunQuery(all_generations=True, limit=1)):
        raise not_empty(target.url)


def is_same(here: MoveMark | None, there: MoveMark | None) -> bool:
    """Whether both marks are of one and the same move."""
    return here is not None and there is not None and here.move == there.move


def is_from(there: MoveMark | None, source: Store) -> bool:
    """Whether what has arrived came from this source: perhaps by a move that was abandoned since."""
    return there is not None and there.stage == "arriving" and there.other == source.address


def refuse_strangers(source: Store, here: MoveMark | None, target: Store, there: MoveMark | None) -> None:
    """Raise StoreMoved if either store is closed by another move than one from this source to this target."""
    if here is not None and here.is_closed:
        goes_there = is_same(here, there) or here.other == target.address
        if here.stage != "moving" or not goes_there:
            raise closed(here, source.url)
    if there is not None and there.is_closed:
        is_ours = there.stage == "arriving" and (is_same(here, there) or is_from(there, source))
        if not is_ours:
            raise closed(there, target.url)
