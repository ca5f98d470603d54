"""What two stores hold, side by side: a digest of each run, and where the first differs.

A page of each is in memory at a time. Positions of messages do not count, only their order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest

import msgspec

from ..errors import StoreCorrupt
from ..stores.base import MoveCursor, MovePage, Reply, Store
from ..stores.rows import WholeRun

PAGE_ROWS_MAX = 500
PAGE_BYTES_MAX = 8 * 1024 * 1024


@dataclass
class Counts:
    """How much there is."""

    runs: int = 0
    records: int = 0
    messages: int = 0
    replies: int = 0


@dataclass(frozen=True)
class Part:
    """What is moved: all but some ids and replies, which stay because they are damaged."""

    ids: Collection[str] = field(default_factory=frozenset[str])
    """All generations of these stay."""

    def of(self, page: MovePage) -> MovePage:
        """A page without what stays."""
        if not self.ids:
            return page
        return page._replace(runs=[run for run in page.runs if run.row.id not in self.ids])


def pages(store: Store, after: MoveCursor) -> Iterator[MovePage]:
    """All that a store holds after a cursor; the last page is the first that is empty."""
    while True:
        page = store.export_page(after, limit=PAGE_ROWS_MAX, bytes_max=PAGE_BYTES_MAX)
        yield page
        if not (page.runs or page.replies or page.damage):
            return
        after = page.after


def compare(source: Store, target: Store, part: Part, tell: Callable[[int], object]) -> Counts:
    """Read both, and count what the target has. Raises StoreCorrupt for the first thing that differs.

    `tell` hears after each page how many runs have been compared.
    """
    counts = Counts()
    here, there = _things(source, part), _things(target, Part())
    for left, right in zip_longest(here, there):
        if left is None or right is None or digest(left) != digest(right):
            raise _differs(left, right, source, target)
        if isinstance(right, Reply):
            counts.replies += 1
            continue
        counts.runs += 1
        counts.records += len(right.records)
        counts.messages += len(right.messages)
        if counts.runs % PAGE_ROWS_MAX == 0:
            tell(counts.runs)
    _compare_statuses(source, target, part)
    return counts


def digest(thing: WholeRun | Reply) -> bytes:
    """A SHA-256 of all that is kept of a run, or of a reply."""
    if isinstance(thing, WholeRun):
        thing = thing._replace(messages=[message._replace(pos=0) for message in thing.messages])
    return sha256(msgspec.msgpack.encode(thing)).digest()


def _things(store: Store, part: Part) -> Iterator[WholeRun | Reply]:
    for page in pages(store, MoveCursor()):
        yield from part.of(page).runs
        yield from page.replies


def _compare_statuses(source: Store, target: Store, part: Part) -> None:
    """Compare the counts that the stores make themselves, over their indexes."""
    here, there = source.counts(), target.counts()
    if not part.ids and here != there:
        raise StoreCorrupt(
            f"Store '{target.url}' counts {there} runs by status, and '{source.url}' {here}: an index of one "
            "of them is damaged. Nothing is lost: the runs are still in the store that is left.",
            hint="Run the same `perdure move` with --abandon, and look at both stores with `perdure doctor`.",
        )


def _differs(
    left: WholeRun | Reply | None, right: WholeRun | Reply | None, source: Store, target: Store
) -> StoreCorrupt:
    if left is None:
        what = f"Store '{target.url}' has {_name(right)}, which '{source.url}' has not"
    elif right is None:
        what = f"Store '{target.url}' lacks {_name(left)}, which '{source.url}' has"
    else:
        what = f"{_name(left)} is not in '{target.url}' what it is in '{source.url}'".capitalize()
    return StoreCorrupt(
        f"{what}. Nothing is lost: the runs are still in the store that is left.",
        hint="Run the same `perdure move` with --abandon, and look at both stores with `perdure doctor`.",
    )


def _name(thing: WholeRun | Reply | None) -> str:
    if isinstance(thing, WholeRun):
        return f"run {thing.row.id!r} (number {thing.row.number})"
    return f"reply {thing.request!r}" if thing is not None else "nothing"
