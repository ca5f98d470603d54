"""A mark on PostgreSQL waits for what is being written, and what comes after it sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from perdure.errors import StoreMoved
from perdure.stores.base import Batch, MoveCursor, MoveMark
from perdure.stores.postgres import PostgresStore
from perdure.stores.postgres.link import Link
from perdure.stores.postgres.write import write_submission
from tests.stores.build import new_run

MOVING = MoveMark("moving", "m1", 1, "sqlite:////there.db", 5_000)


@pytest.fixture
def stores(postgres_url: str) -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """The same store, as two processes have it."""
    opened = PostgresStore(postgres_url), PostgresStore(postgres_url)
    yield opened
    for store in opened:
        store.close()


def waits_for_a_lock(store: PostgresStore) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    ((count,),) = store._database.read(lambda link: link.query(query))
    return count > 0


def test_a_mark_waits_for_a_start_that_is_being_written_and_the_start_is_there(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    client, mover = stores
    written, marked, go_on = threading.Event(), threading.Event(), threading.Event()

    def submit_slowly(link: Link) -> None:
        write_submission(link, Batch(starts=[new_run("slow")]), client._gate, client._streams)
        written.set()
        assert go_on.wait(30)

    def mark() -> None:
        mover.mark_move(None, MOVING, now_ms=0)
        marked.set()

    submitting = threading.Thread(target=lambda: client._database.write(submit_slowly))
    marking = threading.Thread(target=mark)
    submitting.start()
    assert written.wait(30)
    marking.start()
    while not (marked.is_set() or waits_for_a_lock(client)):
        pass
    was_marked = marked.is_set()
    go_on.set()
    submitting.join()
    marking.join()

    assert not was_marked
    page = mover.export_page(MoveCursor(), limit=9, bytes_max=1 << 20)
    assert [run.row.id for run in page.runs] == ["slow"]
    with pytest.raises(StoreMoved):
        client.submit(Batch(starts=[new_run("late")]))
