"""What two stores hold, side by side: a digest of each run and row of streams, and where the first differs.

A page of each is in memory at a time. Positions of messages do not count, only their order; those of
events do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest
from typing import NamedTuple, TypeAlias

import msgspec

from ..errors import StoreCorrupt
from ..stores.base import MoveCursor, MovePage, Reply, Store
from ..stores.rows import WholeRun
from ..stores.stream_rows import AWAITING, EVENT, STREAM, Columns, RowKind, kind_at

PAGE_ROWS_MAX = 500
PAGE_BYTES_MAX = 8 * 1024 * 1024


@dataclass
class Counts:
    """How much there is."""

    runs: int = 0
    records: int = 0
    messages: int = 0
    replies: int = 0
    streams: int = 0
    events: int = 0


class StreamRow(NamedTuple):
    """A row of streams, and of which kind it is."""

    kind: RowKind
    columns: Columns


Thing: TypeAlias = WholeRun | Reply | StreamRow


@dataclass(frozen=True)
class Part:
    """What is moved: all but some ids, replies and events, which stay because they are damaged."""

    ids: Collection[str] = field(default_factory=frozenset[str])
    """All generations of these stay."""
    runs: Collection[int] = field(default_factory=frozenset[int])
    """The numbers of these generations."""

    def of(self, page: MovePage) -> MovePage:
        """A page without what stays."""
        if not self.ids:
            return page
        rows = page.rows
        if page.rows and kind_at(page.kind) is AWAITING:
            rows = [row for row in rows if row[0] not in self.runs]
        return page._replace(runs=[run for run in page.runs if run.row.id not in self.ids], rows=rows)


def pages(store: Store, after: MoveCursor) -> Iterator[MovePage]:
    """All that a store holds after a cursor; the last page is the first that is empty."""
    while True:
        page = store.export_page(after, limit=PAGE_ROWS_MAX, bytes_max=PAGE_BYTES_MAX)
        yield page
        if page.is_empty:
            return
        after = page.after


def compare(source: Store, target: Store, part: Part, tell: Callable[[Counts], object]) -> Counts:
    """Read both, and count what the target has. Raises StoreCorrupt for the first thing that differs.

    `tell` hears now and then how much has been compared.
    """
    counts = Counts()
    here, there = _things(source, part), _things(target, Part())
    for left, right in zip_longest(here, there):
        if left is None or right is None or digest(left) != digest(right):
            raise _differs(left, right, source, target)
        _count(counts, right)
        if (counts.runs + counts.events) % PAGE_ROWS_MAX == 0:
            tell(counts)
    _compare_statuses(source, target, part)
    return counts


def _count(counts: Counts, thing: Thing) -> None:
    match thing:
        case WholeRun():
            counts.runs += 1
            counts.records += len(thing.records)
            counts.messages += len(thing.messages)
        case Reply():
            counts.replies += 1
        case StreamRow():
            counts.streams += thing.kind is STREAM
            counts.events += thing.kind is EVENT


def digest(thing: Thing) -> bytes:
    """A SHA-256 of all that is kept of a run, a reply, or a row."""
    if isinstance(thing, StreamRow):
        return sha256(
            msgspec.msgpack.encode((thing.kind.name, thing.columns[: thing.kind.compared]))
        ).digest()
    if isinstance(thing, WholeRun):
        thing = thing._replace(messages=[message._replace(pos=0) for message in thing.messages])
    return sha256(msgspec.msgpack.encode(thing)).digest()


def _things(store: Store, part: Part) -> Iterator[Thing]:
    for whole in pages(store, MoveCursor()):
        page = part.of(whole)
        yield from page.runs
        yield from page.replies
        kind = kind_at(page.kind) if page.rows else None
        if kind is not None:
            yield from (StreamRow(kind, row) for row in page.rows)


def _compare_statuses(source: Store, target: Store, part: Part) -> None:
    """Compare the counts that the stores make themselves, over their indexes."""
    here, there = source.counts(), target.counts()
    if not part.ids and here != there:
        raise StoreCorrupt(
            f"Store '{target.url}' counts {there} runs by status, and '{source.url}' {here}: an index of one "
            "of them is damaged. Nothing is lost: the runs are still in the store that is left.",
            hint="Run the same `perdure move` with --abandon, and look at both stores with `perdure doctor`.",
        )


def _differs(left: Thing | None, right: Thing | None, source: Store, target: Store) -> StoreCorrupt:
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


def _name(thing: Thing | None) -> str:
    match thing:
        case WholeRun():
            return f"run {thing.row.id!r} (number {thing.row.number})"
        case Reply():
            return f"reply {thing.request!r}"
        case StreamRow():
            return f"the row {thing.kind.key_of(thing.columns)} of table {thing.kind.name!r}"
        case None:
            return "nothing"
