"""`perdure move`: what it says, its JSON and its exit codes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from perdure.stores.sqlite import SqliteStore
from tests.faces.conftest import Perdure, Spawn


@pytest.fixture
def shop(perdure: Perdure) -> None:
    """A store with a run that has ended and one that waits."""
    assert perdure("run", "shop.py:plus", "-i", "1", "--id", "one").code == 0
    assert perdure("start", "shop.py:asking", "-i", "1", "--id", "ask").code == 0


@pytest.mark.usefixtures("shop")
def test_moving_says_what_was_moved_and_leaves_nothing_behind(perdure: Perdure) -> None:
    answer = perdure("move", "perdure.db", "new.db")

    assert answer.code == 0
    assert "Moved 2 runs with 1 record, 0 waiting messages and 0 replies to sqlite:///new.db." in answer.out
    assert "sqlite:///perdure.db is closed" in answer.out
    assert answer.err.splitlines() == ["Reading …", "Copying …", "Comparing …"]
    assert [run["id"] for run in perdure("list", "--store", "new.db", "--json").lines] == ["ask", "one"]


@pytest.mark.usefixtures("shop")
def test_moving_as_json(perdure: Perdure) -> None:
    answer = perdure("move", "perdure.db", "new.db", "--json")

    assert answer.json == {
        "source": "sqlite:///perdure.db", "target": "sqlite:///new.db", "runs": 2, "records": 1,
        "messages": 0, "replies": 0, "streams": 0, "events": 0, "left": [], "was_done": False,
    }  # fmt: skip


@pytest.mark.usefixtures("shop")
def test_moving_to_postgres_and_back(perdure: Perdure, postgres_url: str) -> None:
    assert perdure("move", "perdure.db", postgres_url).code == 0
    assert perdure("send", "ask", "approval", '"ann"', "--store", postgres_url).code == 0

    assert perdure("move", postgres_url, "back.db").code == 0

    asked = perdure("list", "--store", "back.db", "--json").lines
    assert [run["id"] for run in asked] == ["ask", "one"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("send", "ask", "approval", '"ann"'),
        ("start", "shop.py:plus", "-i", "1"),
        ("run", "shop.py:plus", "-i", "1"),
        ("worker", "shop.py"),
        ("doctor",),
        ("deploy-check", "shop.py"),
    ],
)
def test_every_command_on_a_store_that_was_left_says_where_the_runs_are(
    perdure: Perdure, project: Path, command: tuple[str, ...]
) -> None:
    perdure("move", "perdure.db", "new.db")

    answer = perdure(*command)

    assert answer.code == 5
    assert f"were moved to 'sqlite:///{project}/new.db'" in answer.err
    assert f"hint: Use sqlite:///{project}/new.db from now on." in answer.err


@pytest.mark.usefixtures("shop")
def test_moving_away_from_a_worker_is_refused_by_its_name(perdure: Perdure, project: Path) -> None:
    store = SqliteStore(project / "perdure.db")
    store.acquire("the-worker", now_ms=0, ttl_ms=1 << 50)

    answer = perdure("move", "perdure.db", "new.db")

    assert answer.code == 5
    assert "'the-worker'" in answer.err
    assert "hint: Stop them first" in answer.err
    assert not (project / "new.db").exists()
    store.close()


@pytest.mark.usefixtures("shop")
def test_a_move_that_was_done_says_so_when_it_is_run_again(perdure: Perdure) -> None:
    perdure("move", "perdure.db", "new.db")

    answer = perdure("move", "perdure.db", "new.db")

    assert answer.code == 0
    assert "there was nothing left to move" in answer.out


@pytest.mark.usefixtures("shop")
def test_undoing_where_nothing_is_under_way_says_so(perdure: Perdure) -> None:
    perdure("list", "--store", "perdure.db")
    SqliteStore("new.db").close()

    answer = perdure("move", "perdure.db", "new.db", "--abandon")

    assert answer.code == 0
    assert "nothing was done" in answer.out


@pytest.mark.usefixtures("shop")
def test_a_move_that_fails_half_way_says_how_to_go_on(perdure: Perdure, project: Path) -> None:
    store = SqliteStore(project / "perdure.db")
    store.close()
    import apsw

    SqliteStore(project / "new.db").close()
    connection = apsw.Connection(str(project / "new.db"))
    connection.execute("CREATE TRIGGER full BEFORE INSERT ON run BEGIN SELECT RAISE(ABORT, 'no more'); END")

    failed = perdure("move", "perdure.db", "new.db")
    closed = perdure("list")
    connection.execute("DROP TRIGGER full")
    connection.close()
    undone = perdure("move", "perdure.db", "new.db", "--abandon")

    assert failed.code == 5
    assert "both stores are closed: run the same command again" in failed.err
    assert "no more" in failed.err
    assert closed.code == 5
    assert "are being moved to" in closed.err
    assert undone.code == 0
    assert "sqlite:///perdure.db is open again" in undone.out
    assert perdure("list").code == 0


def test_a_move_that_is_interrupted_can_be_run_again(perdure: Perdure, spawn: Spawn, project: Path) -> None:
    from tests.moving.conftest import fill

    fill(f"sqlite:///{project}/perdure.db", 5_000)

    with spawn("move", "perdure.db", "new.db") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Copying"):
                break
        process.send_signal(signal.SIGINT)
        process.wait()

    answer = perdure("move", "perdure.db", "new.db", "--json")
    assert answer.code == 0
    assert len(perdure("list", "--store", "new.db", "--json", "--limit", "9999").lines) == 5_000
