"""The faulty disk: what is synced survives, what is not may not, and faults come where they were planned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from perdure.testing.disk import Fault, FaultyDisk
from perdure.testing.source import SeededSource

LOSSES = range(40)


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    with FaultyDisk() as disk:
        yield disk


def connect(path: Path, *, synchronous: str = "FULL") -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def write(connection: apsw.Connection, rows: int) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    for number in range(rows):
        connection.execute("INSERT INTO t VALUES (?)", (number,))


def left_after(disk: FaultyDisk, folder: Path, seed: int) -> int:
    """How many rows a loss of power leaves; -1 for a damaged file."""
    after = folder / f"after-{seed}"
    disk.survivors(folder, after, SeededSource(seed))
    connection = apsw.Connection(str(after / "x.db"), vfs="unix")  # not by the disk: it may be dead
    try:
        return connection.execute("SELECT count(*) FROM t").get  # type: ignore[return-value]
    except apsw.Error:
        return -1
    finally:
        connection.close()


def test_what_was_synced_survives_every_loss_of_power(disk: FaultyDisk, tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    write(connection, 20)

    left = {left_after(disk, tmp_path, seed) for seed in LOSSES}

    assert left == {20}
    connection.close()


def test_what_was_not_synced_is_lost_in_some_and_kept_in_others(disk: FaultyDisk, tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db", synchronous="OFF")
    write(connection, 20)

    left = {left_after(disk, tmp_path, seed) for seed in LOSSES}

    assert 20 in left
    assert len(left) > 1
    connection.close()


def test_the_same_seed_leaves_the_same_files(disk: FaultyDisk, tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db", synchronous="OFF")
    write(connection, 20)

    contents: list[dict[str, bytes]] = []
    for name in ("a", "b"):
        disk.survivors(tmp_path, tmp_path / name, SeededSource(3))
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})

    assert contents[0] == contents[1] != {}
    connection.close()


def test_after_the_power_is_cut_nothing_is_acknowledged(disk: FaultyDisk, tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    write(connection, 5)

    disk.cut_power(nth=2)
    for _ in range(2):
        with pytest.raises(apsw.Error, match="power"):
            connection.execute("INSERT INTO t VALUES (0)")

    assert disk.is_dead
    assert left_after(disk, tmp_path, 1) in {5, 6}
    with pytest.raises(apsw.Error, match="power"):
        connection.close()


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.ERROR, apsw.IOError), (Fault.SHORT, apsw.IOError), (Fault.FULL, apsw.FullError)],
)
def test_a_planned_write_fails_once_and_the_next_one_succeeds(
    disk: FaultyDisk, tmp_path: Path, fault: Fault, error: type[Exception]
) -> None:
    connection = connect(tmp_path / "x.db")
    write(connection, 1)

    disk.fail(fault, of={"write"})
    with pytest.raises(error):
        connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("INSERT INTO t VALUES (2)")

    assert disk.faults_made == 1
    assert [x for (x,) in connection.execute("SELECT x FROM t")] == [0, 2]
    connection.close()


def test_a_lasting_fault_lasts_until_it_is_mended(disk: FaultyDisk, tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    write(connection, 1)

    disk.fail(of={"sync"}, lasting=True)
    for _ in range(3):
        with pytest.raises(apsw.IOError):
            connection.execute("INSERT INTO t VALUES (1)")
    disk.mend()
    connection.execute("INSERT INTO t VALUES (2)")

    assert connection.execute("SELECT count(*) FROM t").get == 2
    connection.close()


def test_a_full_disk_lets_no_file_grow(disk: FaultyDisk, tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    write(connection, 1)

    disk.fill_up()
    with pytest.raises(apsw.FullError):
        write(connection, 100)
    disk.mend()
    connection.execute("INSERT INTO t VALUES (7)")

    assert connection.execute("PRAGMA integrity_check").get == "ok"
    connection.close()


def test_a_sync_that_failed_has_lost_what_every_program_still_sees(disk: FaultyDisk, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = connect(path)
    write(connection, 1)

    disk.fail(of={"sync"})
    with pytest.raises(apsw.IOError):
        connection.execute("INSERT INTO t VALUES (1)")
    seen = Path(f"{path}-wal").stat().st_size
    disk.survivors(tmp_path, tmp_path / "after", SeededSource(0))

    assert (tmp_path / "after" / "x.db-wal").stat().st_size < seen
    connection.close()


def test_when_the_block_ends_new_files_are_on_the_real_disk(tmp_path: Path) -> None:
    with FaultyDisk() as disk:
        pass

    connection = connect(tmp_path / "x.db")

    assert disk.operations == 0
    assert connection.open_vfs == apsw.vfs_names()[0]
    connection.close()
