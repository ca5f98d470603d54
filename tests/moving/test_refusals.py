"""What is not moved, and why; nothing is written then."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest

from perdure import Client, Engine
from perdure.errors import StoreCorrupt, StoreError, StoreInUse, StoreMoved, StoreUnavailable
from perdure.moving import abandon, move
from perdure.stores.base import Batch
from perdure.stores.opening import open_store
from tests.moving.conftest import break_off, fill, homes, ids_in
from tests.moving.program import waits_long
from tests.stores.build import LARGE, new_run, record


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, str]:
    """Of two SQLite stores; the first has three runs."""
    urls = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    fill(urls[0], 3)
    return urls


@pytest.mark.parametrize("where", [0, 1])
async def test_nothing_is_moved_while_a_worker_is_alive_on_either_store(
    urls: tuple[str, str], where: int
) -> None:
    fill(urls[0], 3)
    async with Engine(urls[where]):
        with pytest.raises(StoreInUse, match=r"workers that are alive.*process \d+.*Stop them"):
            await asyncio.to_thread(move, *urls)

    assert homes(*urls) == [urls[0]]
    assert ids_in(urls[1]) == []


async def test_a_worker_that_comes_in_between_stops_the_move(urls: tuple[str, str]) -> None:
    fill(urls[0], 3)
    came: list[Engine] = []

    def come(loop: asyncio.AbstractEventLoop) -> None:
        if not came:
            came.append(Engine(urls[0]))
            asyncio.run_coroutine_threadsafe(came[0].__aenter__(), loop).result()

    loop = asyncio.get_running_loop()
    with pytest.raises(StoreInUse):
        await asyncio.to_thread(move, *urls, progress=lambda _: come(loop))
    await came[0].__aexit__(None, None, None)

    assert homes(*urls) == [urls[0]]
    assert ids_in(urls[1]) == []


def test_runs_are_not_moved_where_others_are(urls: tuple[str, str]) -> None:
    fill(urls[0], 3)
    fill(urls[1], 2)

    with pytest.raises(StoreError, match=r"runs of its own.*Nothing was moved"):
        move(*urls)

    assert [ids_in(url) for url in urls] == [["run-0", "run-1", "run-2"], ["run-0", "run-1"]]


def test_a_target_that_others_take_at_the_last_moment_leaves_the_source_open(urls: tuple[str, str]) -> None:
    fill(urls[0], 3)

    def take(progress: object) -> None:
        if getattr(progress, "step", "") == "closing":
            fill(urls[1], 2)

    with pytest.raises(StoreError, match="runs of its own"):
        move(*urls, progress=take)

    assert [ids_in(url) for url in urls] == [["run-0", "run-1", "run-2"], ["run-0", "run-1"]]


def test_a_store_is_not_moved_to_itself_however_it_is_named(
    paths: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(StoreError, match="one and the same"):
        move(paths[0], "sqlite:///from.db")

    assert ids_in(paths[0]) == ["run-0", "run-1", "run-2"]


def test_a_postgres_store_that_is_named_in_another_way_is_still_found_to_be_the_same(
    postgres_url: str,
) -> None:
    fill(postgres_url, 3)

    with pytest.raises(StoreError, match="runs of its own"):
        move(postgres_url, f"{postgres_url}&application_name=again")

    assert ids_in(postgres_url) == ["run-0", "run-1", "run-2"]


def test_where_there_is_nothing_to_move_no_store_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="There is no store"):
        move(f"sqlite:///{tmp_path}/none.db", f"sqlite:///{tmp_path}/to.db")

    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_can_be_moved(tmp_path: Path) -> None:
    paths = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    open_store(paths[0]).close()

    moved = move(*paths)

    assert moved.runs == 0
    assert ids_in(paths[0]) is None
    assert ids_in(paths[1]) == []


def test_a_move_that_was_broken_off_is_not_gone_on_with_to_another_store(
    paths: tuple[str, str], tmp_path: Path
) -> None:
    break_off(paths)
    another = f"sqlite:///{tmp_path}/another.db"

    with pytest.raises(StoreMoved, match=r"being moved to .*to\.db"):
        move(paths[0], another)
    with pytest.raises(StoreMoved, match=r"being moved to .*to\.db"):
        abandon(paths[0], another)

    assert ids_in(another) == []
    assert move(*paths).runs == 3


def test_a_store_that_awaits_the_rest_of_another_is_not_moved_to_or_from(
    paths: tuple[str, str], tmp_path: Path
) -> None:
    break_off(paths)
    another = f"sqlite:///{tmp_path}/another.db"
    fill(another, 2)

    with pytest.raises(StoreMoved, match=r"cannot be used yet: runs of .*from\.db"):
        move(another, paths[1])
    with pytest.raises(StoreMoved, match="cannot be used yet"):
        move(paths[1], f"sqlite:///{tmp_path}/third.db")

    assert ids_in(another) == ["run-0", "run-1"]


def test_a_store_that_was_left_is_not_moved_again_nor_back_to(paths: tuple[str, str], tmp_path: Path) -> None:
    move(*paths)

    with pytest.raises(StoreMoved, match=r"were moved to .*to\.db"):
        move(paths[0], f"sqlite:///{tmp_path}/another.db")
    with pytest.raises(StoreMoved, match=r"were moved to .*to\.db"):
        move(paths[1], paths[0])

    assert homes(*paths) == [paths[1]]


def test_an_old_copy_of_the_source_cannot_be_made_a_second_home(
    paths: tuple[str, str], tmp_path: Path
) -> None:
    break_off(paths)
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "from.db", copy)
    move(*paths)

    shutil.copy(copy, tmp_path / "from.db")

    with pytest.raises(StoreMoved, match="cannot be abandoned"):
        abandon(*paths)
    with pytest.raises(StoreError, match="runs of its own"):
        move(*paths)
    assert homes(*paths) == [paths[1]]


def test_a_move_to_a_store_that_is_gone_can_be_undone(paths: tuple[str, str], tmp_path: Path) -> None:
    break_off(paths)
    (tmp_path / "to.db").unlink()

    undone = abandon(*paths)

    assert undone.reopened
    assert "There is no store" in undone.trouble
    assert ids_in(paths[0]) == ["run-0", "run-1", "run-2"]


def test_a_move_to_a_store_that_others_took_meanwhile_can_be_undone(paths: tuple[str, str]) -> None:
    break_off(paths, at="closing")
    fill(paths[1], 2)
    with pytest.raises(StoreError, match="runs of its own"):
        move(*paths)

    undone = abandon(*paths)

    assert (undone.reopened, undone.cleared) == (True, False)
    assert ids_in(paths[0]) == ["run-0", "run-1", "run-2"]
    assert ids_in(paths[1]) == ["run-0", "run-1"]


def test_where_no_move_is_under_way_there_is_nothing_to_undo(paths: tuple[str, str]) -> None:
    open_store(paths[1]).close()

    undone = abandon(*paths)

    assert (undone.reopened, undone.cleared) == (False, False)
    assert ids_in(paths[0]) == ["run-0", "run-1", "run-2"]


async def test_a_start_in_between_that_the_source_took_is_moved(paths: tuple[str, str]) -> None:
    """Until the source is closed it takes all: nothing falls between the two."""
    async with Client(paths[0]) as client:
        loop = asyncio.get_running_loop()

        def start(progress: object) -> None:
            if getattr(progress, "step", "") == "read":
                starting = client.start(waits_long("late"), id="late")
                asyncio.run_coroutine_threadsafe(starting, loop).result()

        await asyncio.to_thread(move, *paths, progress=start)

    assert ids_in(paths[1]) == ["late", "run-0", "run-1", "run-2"]


# -- damage ----------------------------------------------------------------------------------------


def change(url: str, sql: str) -> None:
    """Change the file behind the store's back."""
    connection = apsw.Connection(url.removeprefix("sqlite:///"))
    connection.execute(sql)
    connection.close()


DAMAGES = [
    "UPDATE run SET input = x'00' WHERE number = 2",
    "UPDATE record SET payload = x'00' WHERE run = 2",
    "DELETE FROM record WHERE run = 2 AND seq = 0",
    "UPDATE message SET payload = x'00' WHERE run = 2",
    "UPDATE state SET payload = x'00' WHERE run = 2",
    "UPDATE attempt SET details = x'00' WHERE run = 2",
    "UPDATE blob_chunk SET bytes = x'00'",
]


def fill_for_damage(url: str) -> None:
    from perdure.stores.base import AttemptRow, StateRow
    from tests.stores.build import signal

    store = open_store(url)
    lease = store.acquire("w", now_ms=0, ttl_ms=1 << 50)
    store.commit(lease, Batch(starts=[new_run(f"run-{n}") for n in range(3)]))
    store.commit(
        lease,
        Batch(
            records=[record(2, 0), record(2, 1, LARGE)],
            states=[StateRow(2, "s", 1, b"1", 1)],
            attempts=[AttemptRow(2, "0/1/pay", 1, None, b"1", 1)],
            messages=[signal(2)],
        ),
    )
    store.release(lease)
    store.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_named_and_nothing_is_moved(tmp_path: Path, damage: str) -> None:
    urls = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    fill_for_damage(urls[0])
    change(urls[0], damage)

    with pytest.raises(StoreCorrupt, match=r"damaged, so its runs are not moved.*--leave-damaged"):
        move(*urls)

    assert ids_in_unchecked(urls[0]) == ["run-0", "run-1", "run-2"]
    assert ids_in(urls[1]) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_can_stay_behind(tmp_path: Path, damage: str) -> None:
    urls = f"sqlite:///{tmp_path}/from.db", f"sqlite:///{tmp_path}/to.db"
    fill_for_damage(urls[0])
    change(urls[0], damage)

    moved = move(*urls, leave_damaged=True)

    assert [left.id for left in moved.left] == ["run-1"]
    assert moved.runs == 2
    assert ids_in(urls[1]) == ["run-0", "run-2"]
    with pytest.raises(StoreMoved):
        open_store(urls[0])


def test_a_run_that_is_damaged_while_it_is_moved_is_not_left_out_in_silence(paths: tuple[str, str]) -> None:
    def spoil(progress: object) -> None:
        if getattr(progress, "step", "") == "closed":
            change(paths[0], "UPDATE run SET input = x'00' WHERE number = 2")

    with pytest.raises(StoreCorrupt, match=r"Run 'run-1'"):
        move(*paths, progress=spoil)

    assert homes(*paths) == []
    abandon(*paths)
    assert ids_in_unchecked(paths[0]) == ["run-0", "run-1", "run-2"]


@pytest.mark.parametrize(
    ("change_of", "says"),
    [
        ("UPDATE record SET payload = payload || '1', crc = NULL WHERE run = 2", "run 'run-1'"),
        ("DELETE FROM run WHERE number = 3", "lacks run 'run-2'"),
        ("INSERT INTO reply VALUES (1, 'q', 1, NULL, 1, NULL)", "has reply 'q'"),
        ("UPDATE run SET latest = 0 WHERE number = 2", "run 'run-1'"),
        ("INSERT INTO tag VALUES (2, 'a', 'b')", "run 'run-1'"),
    ],
)
def test_what_did_not_arrive_as_it_left_is_found_before_the_source_is_given_up(
    paths: tuple[str, str], change_of: str, says: str
) -> None:
    copied: list[bool] = []

    def spoil(progress: object) -> None:
        if getattr(progress, "step", "") == "copy" and not copied:
            copied.append(True)
            change(paths[1], change_of)

    with pytest.raises(StoreCorrupt, match=f"(?i){says}.*Nothing is lost"):
        move(*paths, progress=spoil)

    assert homes(*paths) == []
    abandon(*paths)
    assert ids_in(paths[0]) == ["run-0", "run-1", "run-2"]
    assert ids_in(paths[1]) == []


def ids_in_unchecked(url: str) -> list[str]:
    """Those of a store that is open, and damaged."""
    from perdure.stores.base import RunQuery

    store = open_store(url)
    try:
        return sorted(row.id for row in store.list_runs(RunQuery(all_generations=True)))
    finally:
        store.close()
