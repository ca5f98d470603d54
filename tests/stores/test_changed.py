"""Whether others may have written: a worker that asks often must miss nothing, and should read little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.core.records import Status
from perdure.stores.base import Batch, Lease, Reply, Store
from perdure.stores.sqlite import SqliteStore
from tests.stores.build import end, signal, start, submit

WRITES: dict[str, Callable[[Store, Lease, int], object]] = {
    "a start": lambda store, lease, run: submit(store, "new"),
    "a message": lambda store, lease, run: store.submit(Batch(messages=[signal(run)])),
    "an end": lambda store, lease, run: store.commit(lease, Batch(ends=[end(run, Status.FAILED)])),
    "a reply": lambda store, lease, run: store.commit(lease, Batch(replies=[Reply("q", True, b"1", 5)])),
    "a freed run": lambda store, lease, run: store.commit(lease, Batch(freed=[run])),
    "a released lease": lambda store, lease, run: store.release(lease),
}


@pytest.mark.parametrize("write", WRITES)
def test_what_another_process_has_written_is_noticed_however_often_it_is_asked(
    open_store: Callable[[], Store], store: Store, lease: Lease, write: str
) -> None:
    other = open_store()
    run = start(store, lease)
    for _ in range(3):
        other.changed()

    WRITES[write](store, lease, run)

    assert other.changed()


def test_a_file_to_which_nothing_was_written_has_not_changed(tmp_path: Path) -> None:
    store, other = SqliteStore(tmp_path / "runs.db"), SqliteStore(tmp_path / "runs.db")
    submit(store)
    seen = [other.changed(), other.changed()]

    other.run_by_id("order-17")
    other.free_workflows(now_ms=1)

    assert seen == [True, False]
    assert not other.changed()
    store.close()
    other.close()
