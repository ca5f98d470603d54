"""Where journals come from: a store, a file, or a value in a program."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ..core.records import RunRow, Status
from ..errors import NotDecodable, RunNotFound
from ..stores.base import RunQuery, Store
from ..stores.opening import open_store
from .form import Child, Journal, read_journal, word

Source = Mapping[str, Any] | str | os.PathLike[str] | bytes
"""A journal as `json.load` gives it, the path of its file, or its JSON."""

_PAGE = 200


@contextmanager
def open_to_look(url: str) -> Generator[Store]:
    """A store that is only looked at: the file stays as it is. Raises StoreError."""
    store = open_store(url, only_look=True)
    try:
        yield store
    finally:
        store.close()


def load_journal(source: Source) -> Journal:
    """Read a journal that was exported. Raises NotDecodable, or OSError for a file that cannot be read."""
    if isinstance(source, Mapping):
        return read_journal(msgspec.json.encode(source), "journal")
    if isinstance(source, bytes):
        return read_journal(source, "journal")
    path = Path(source)
    try:
        return read_journal(path.read_bytes(), path.name)
    except FileNotFoundError as error:
        raise NotDecodable(str(path), "there is no such file") from error


def find_journal(store: Store, run_id: str, *, generation: int | None = None) -> Journal:
    """The journal of a run in a store: its latest generation, or the one asked for. Raises RunNotFound."""
    row = store.run_by_id(run_id, generation=generation)
    if row is None:
        which = "" if generation is None else f" in generation {generation}"
        raise RunNotFound(
            f"There is no run {run_id!r}{which} in '{store.url}'.",
            run_id=run_id,
            hint="`perdure list` shows the runs there are.",
        )
    return _journal(store, row, store.tags_of([row.number]).get(row.number, {}))


def find_journals(
    store: Store, *, statuses: Sequence[str] = (), workflow: str | None = None
) -> Iterator[Journal]:
    """The journals of all runs, or of those with these statuses: newest first, a page in memory at a time.

    Of an id that was used again or continued as new, all generations. `statuses` are
    words for people: `running`, `timed out`.
    """
    numbers = tuple(status for status in Status if status.word in statuses)
    before: int | None = None
    while True:
        query = RunQuery(
            workflow=workflow, statuses=numbers, all_generations=True, limit=_PAGE, before=before
        )
        page = store.list_runs(query)
        tags = store.tags_of([row.number for row in page])
        for row in page:
            yield _journal(store, row, tags.get(row.number, {}))
        if len(page) < _PAGE:
            return
        before = page[-1].number


def _journal(store: Store, row: RunRow, tags: dict[str, str]) -> Journal:
    records = store.records(row.number)
    # A worker may be at work: a row of before its end does not go with records of after it.
    while (now := store.run_by_number(row.number)) is not None and now.status != row.status:
        row, records = now, store.records(row.number)
    parent = None if row.parent is None else store.run_by_number(row.parent)
    children = [
        Child(child.id, child.workflow, word(Status(child.status)), child.parent_key.removesuffix("/end"))
        for child in store.children(row.number)
    ]
    return Journal(row, records, tags, None if parent is None else parent.id, children)
