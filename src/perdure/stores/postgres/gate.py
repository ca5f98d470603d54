"""The gate: what a transaction that no lease guards passes before it writes.

Whoever writes without a lease shares a lock and then, in a statement of its own, looks
at the mark. A move that changes the mark has that lock alone: no such write is under way
then, and those after it see the new mark.
"""

from __future__ import annotations

from ..base import MoveMark
from ..moves import refuse_closed
from .link import Link
from .pipeline import Answer
from .place import Place


class Gate:
    """The gate of one store."""

    def __init__(self, place: Place) -> None:
        self._url = place.url
        self._space = place.space("the gate")

    def ask(self, link: Link) -> Answer:
        """Share the lock, and ask for the mark; in a pipeline, send that."""
        link.run("share_lease", self._space, 0)
        return link.run("move_mark")

    def shut(self, link: Link) -> Answer:
        """Have the lock alone, and ask for the mark."""
        link.run("lock_lease", self._space, 0)
        return link.run("move_mark")

    def check(self, asked: Answer) -> None:
        """Raise StoreMoved if a move has closed the store."""
        refuse_closed(found_mark(asked), self._url)


def found_mark(asked: Answer) -> MoveMark | None:
    """The mark that a statement has found; None in a store that took part in no move."""
    row = asked.fetchone()
    return None if row is None else MoveMark._make(row)
