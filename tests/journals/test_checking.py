"""`perdure deploy-check`: which open runs go on with new code, which part from it, where and why."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import apsw
import pytest

from perdure import StoreReadOnly
from perdure.core.records import Status
from perdure.journals.checking import Checker
from perdure.journals.reading import open_to_look
from perdure.stores.base import Batch, RunEnd
from perdure.stores.opening import open_store
from perdure.testing import Harness
from tests.journals.conftest import OLD, Perdure, Version, begin, check


def line_of(project: Path, text: str) -> int:
    lines = (project / "app.py").read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def test_code_that_has_not_changed_fits_all_runs(perdure: Perdure, version: Version) -> None:
    begin(version(OLD), "a", "b", "c")

    answer = perdure("deploy-check", "app.py")

    assert answer.code == 0
    assert "Replayed 3 open runs in" in answer.out
    assert "3 compatible, 0 need patched, 0 diverge." in answer.out


def test_a_store_without_open_runs_is_well(perdure: Perdure, version: Version) -> None:
    version(OLD)
    perdure("run", "shop:plus", "--input", "1")

    answer = perdure("deploy-check", "app.py")

    assert answer.code == 0
    assert "Replayed 0 open runs" in answer.out
    assert "There are no open runs." in answer.err


@dataclass(frozen=True)
class Case:
    """A change in the calls of `fulfil`, and what is to be said of it."""

    body: str
    """What stands where the receipt was asked for and the order shipped."""
    line: str
    """The first line of the statement that is shown."""
    says: str
    proposal: str


PATCHABLE = {
    "added": Case(
        body="""
        await notify(order)
        receipt = await charge(order)
        done = await ship(order)""",
        line="await notify(order)",
        says="the code now asks for 'notify' first, which was not there",
        proposal="""
        if patched("notify"):
            await notify(order)""",
    ),
    "removed": Case(
        body="""
        done = await ship(order)""",
        line="done = await ship(order)",
        says="the code goes on to 'ship', which came after it: 'charge' was taken out or moved",
        proposal="""
        if not patched("without charge"):
            await charge(...)  # as it was called before
        done = await ship(order)""",
    ),
    "renamed": Case(
        body="""
        receipt = await charge(order)
        done = await send(order)""",
        line="done = await send(order)",
        says="the code now asks for 'send', and names 'ship' nowhere",
        proposal="""
        @step(name="ship")  # at send, if it does the same; else:
        if patched("send"):
            done = await send(order)
        else:
            ...  # ship as it was""",
    ),
    "arguments": Case(
        body="""
        receipt = await charge(
            order,
            200,
        )
        done = await ship(order)""",
        line="receipt = await charge(",
        says="the code now calls 'charge' with other arguments: charge('a', 200)",
        proposal="""
        if patched("arguments of charge"):
            receipt = await charge(
                order,
                200,
            )
        else:
            ...  # charge with the arguments of before""",
    ),
    "other": Case(
        body="""
        await paid.receive()
        receipt = await charge(order)
        done = await ship(order)""",
        line="await paid.receive()",
        says="the code does not ask for 'charge' here, and waits for time or a message",
        proposal="""
        if patched("after charge"):
            ...  # the new way
        else:
            ...  # the old one""",
    ),
}


@pytest.mark.parametrize("change", PATCHABLE)
def test_a_change_in_the_calls_is_told_with_its_line_and_what_to_write(
    perdure: Perdure, version: Version, project: Path, change: str
) -> None:
    case = PATCHABLE[change]
    begin(version(OLD), "a")
    head = "@step\nasync def send(order: str) -> str: ...\n\n@workflow\nasync def fulfil(order: str) -> str:"
    version(head + indent(dedent(case.body), "    ") + "\n    await paid.receive()\n    return done\n")

    (group,) = check(perdure)["groups"]

    assert (group["verdict"], group["runs"], group["ids"]) == ("needs patched", 1, ["a"])
    parting = group["parting"]
    assert parting["change"] == change
    assert parting["what"].startswith("The journal has step ")
    assert case.says in parting["what"]
    assert parting["line"] == f"{project / 'app.py'}:{line_of(project, case.line)}, in fulfil"
    assert parting["code"].startswith(case.line)
    assert parting["proposal"] == dedent(case.proposal).strip()


def test_what_is_proposed_for_an_added_call_suits_the_old_runs(perdure: Perdure, version: Version) -> None:
    begin(version(OLD), "a")
    changed = OLD.replace("    receipt", "    await notify(order)\n    receipt")
    version(changed)
    (group,) = check(perdure)["groups"]
    code, proposal = group["parting"]["code"], group["parting"]["proposal"]
    mended = proposal.replace("\n", "\n    ")
    version(changed.replace(f"    {code}", f"    {mended}"))

    found = check(perdure)

    assert found["compatible"] == 1


def test_branches_in_another_order_are_told(perdure: Perdure, version: Version) -> None:
    old = """
    @workflow
    async def both(order: str) -> str:
        await asyncio.gather(charge(order), ship(order))
        return await paid.receive()
    """
    begin(version(old), "a")
    version(old.replace("charge(order), ship(order)", "ship(order), charge(order)"))

    (group,) = check(perdure)["groups"]

    assert group["parting"]["change"] == "moved"
    assert "for 'charge' at '0.2/0/charge': the order is another" in group["parting"]["what"]


DIVERGING = {
    "value": ("cents: int\n", "cents: int\n    currency: str\n", "Object missing required field `currency`"),
    "input": ("fulfil(order: str)", "fulfil(order: str, cents: int)", "no value for 'cents'"),
    "workflow": ("async def fulfil", "async def refund", "No workflow of the new code is called 'fulfil'."),
    "fails": ("    await paid", "    {}['x']\n    await paid", "raises where the run stood: KeyError: 'x'"),
    "breaks": ("    await paid", "    ship(order)\n    await paid", "and never awaited it"),
}


@pytest.mark.parametrize("change", DIVERGING)
def test_what_patched_cannot_help_is_told_with_what_helps(
    perdure: Perdure, version: Version, change: str
) -> None:
    before, after, says = DIVERGING[change]
    begin(version(OLD), "a")
    version(OLD, before=before, after=after)

    (group,) = check(perdure)["groups"]

    assert (group["verdict"], group["ids"]) == ("diverges", ["a"])
    assert group["parting"]["change"] == change
    assert says in group["parting"]["what"]
    assert group["parting"]["proposal"]


def test_a_signal_of_another_type_is_found_where_it_was_received(perdure: Perdure, version: Version) -> None:
    old = """
    @workflow
    async def asks(order: str) -> str:
        who = await paid.receive()
        return await ship(who + await paid.receive())
    """
    module = version(old)
    begin(module, "a")

    async def pay() -> None:
        async with Harness("perdure.db", workflows=[module.asks]) as t:
            await t.send("a", module.paid, "ann")
            await t.settle()

    asyncio.run(pay())
    version(old.replace("paid.receive()\n        return", "due.receive()\n        return").replace(
        "    @workflow", '    due = Signal[int]("paid")\n\n    @workflow'
    ))  # fmt: skip

    (group,) = check(perdure)["groups"]

    assert group["parting"]["change"] == "fails"
    assert "NotDecodable: signal 'paid': Expected `int`, got `str`" in group["parting"]["what"]
    assert group["parting"]["line"].endswith("in asks")


def test_runs_of_one_shape_are_told_apart_by_their_values(perdure: Perdure, version: Version) -> None:
    old = """
    @workflow
    async def fulfil(order: str) -> str:
        done = await ship(order)
        {branch}
        return await paid.receive()
    """
    begin(version(old.format(branch="await notify(order)")), "a", "b", "c")
    version(old.format(branch="await notify(order) if done != 'b shipped' else await charge(order)"))

    found = check(perdure)

    assert (found["compatible"], found["needs_patched"]) == (2, 1)
    assert found["groups"][0]["ids"] == ["fulfil-b"]


def test_many_runs_that_part_alike_are_one_group_with_the_first_ids(
    perdure: Perdure, version: Version
) -> None:
    names = [f"{number:02}" for number in range(12)]
    begin(version(OLD), *names)
    version(OLD.replace("charge(order)", "charge(order, 5)"))

    text = perdure("deploy-check", "app.py").out
    some = check(perdure)["groups"]
    every = check(perdure, "--all-ids")["groups"]

    assert "fulfil: 12 runs need patched()" in text
    assert "runs: fulfil-00, fulfil-01, fulfil-02, fulfil-03, fulfil-04 and 7 more (--all-ids)" in text
    assert [(group["runs"], len(group["ids"])) for group in some] == [(12, 5)]
    assert [len(group["ids"]) for group in every] == [12]


def rows_of(path: Path) -> list[Any]:
    """All that stands in all tables."""
    connection = apsw.Connection(str(path))
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = [(table, list(connection.execute(f"SELECT * FROM {table}"))) for table in tables]
    connection.close()
    return rows


def test_nothing_is_written_and_a_worker_may_run_meanwhile(
    perdure: Perdure, version: Version, project: Path
) -> None:
    module = version(OLD)

    async def work() -> tuple[list[Any], list[Any], int]:
        async with Harness("perdure.db", workflows=[module.fulfil]) as t:
            run = await t.start(module.fulfil("a"), id="a")
            await t.settle()
            version(OLD.replace("    receipt", "    await notify(order)\n    receipt"))
            before = rows_of(project / "perdure.db")
            answer = await asyncio.to_thread(perdure, "deploy-check", "app.py")
            after = rows_of(project / "perdure.db")
            await run.send(module.paid, "ann")
            assert await run.result() == "a shipped"
            return before, after, answer.code

    before, after, code = asyncio.run(work())

    assert code == 1
    assert before == after


def test_a_copy_of_the_file_will_do(perdure: Perdure, version: Version, project: Path) -> None:
    begin(version(OLD), "a")
    (project / "there").mkdir()
    shutil.copy(project / "perdure.db", project / "there" / "copy.db")

    answer = perdure("deploy-check", "app.py", "--store", "there/copy.db")

    assert "1 compatible" in answer.out


def test_a_store_of_an_older_schema_is_left_as_it_is(
    perdure: Perdure, version: Version, project: Path
) -> None:
    begin(version(OLD), "a")
    connection = apsw.Connection(str(project / "perdure.db"))
    connection.execute("PRAGMA user_version = 1")

    answer = perdure("deploy-check", "app.py")

    assert answer.code == 5
    assert "has schema 1, and this release needs" in answer.err
    assert "hint: Copy the file, bring the copy up to date" in answer.err
    assert connection.pragma("user_version") == 1
    connection.close()


def test_nothing_can_be_written_to_a_store_that_is_only_looked_at(version: Version) -> None:
    begin(version(OLD), "a")

    with open_to_look("sqlite:///perdure.db") as store, pytest.raises(StoreReadOnly):
        store.acquire("test", now_ms=1 << 42, ttl_ms=1)


def test_a_run_that_was_parked_by_other_code_and_fits_again_is_told(
    perdure: Perdure, version: Version
) -> None:
    begin(version(OLD), "a")
    wrong = version(OLD.replace("    receipt", "    await notify(order)\n    receipt"))

    async def park() -> None:
        async with Harness("perdure.db", workflows=[wrong.fulfil]) as t:
            await t.send("a", wrong.paid, "ann")
            await t.settle()

    asyncio.run(park())
    version(OLD)

    answer = perdure("deploy-check", "app.py")

    assert answer.code == 0
    assert "1 parked run would go on with this code: it fits them again." in answer.err


def test_a_run_with_nothing_left_to_wait_for_is_counted_as_ending(perdure: Perdure, version: Version) -> None:
    begin(version(OLD), "a")
    version(OLD.replace("    await paid.receive()\n", ""))

    answer = perdure("deploy-check", "app.py")

    assert answer.code == 0
    assert "1 run would end at once" in answer.err


def test_runs_of_another_python_are_told(
    perdure: Perdure, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(version(OLD), "a")
    monkeypatch.setattr("perdure.faces.cli.deploying._PYTHON", "3.99")

    answer = perdure("deploy-check", "app.py")

    assert "1 run began on Python 3.1" in answer.err
    assert "and this is 3.99" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("nowhere.py",), 2), (("app.py", "--store", "none.db"), 5), ((), 2)],
    ids=["no module", "no store", "no argument"],
)
def test_what_cannot_be_checked_is_no_yes_and_no_no(
    perdure: Perdure, version: Version, arguments: tuple[str, ...], code: int
) -> None:
    begin(version(OLD), "a")

    answer = perdure("deploy-check", *arguments)

    assert answer.code == code
    assert answer.out == ""


class EndsMeanwhile:
    """A store whose runs end just after they were read, as a worker may have it."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def open_runs(self, *, after: int, limit: int) -> Any:
        page = self._store.open_runs(after=after, limit=limit)
        lease = self._store.acquire("test", now_ms=1 << 42, ttl_ms=1)
        ends = [RunEnd(Status.COMPLETED, b"1", row.created_at_ms, None, row.number) for row, _ in page]
        self._store.commit(lease, Batch(ends=ends))
        self._store.release(lease)
        return page


def test_a_run_that_ends_while_it_is_looked_at_is_not_told(version: Version) -> None:
    begin(version(OLD), "a")
    store = open_store("sqlite:///perdure.db")

    findings = Checker({}).check(EndsMeanwhile(store))  # type: ignore[arg-type]

    store.close()
    assert (findings.runs, findings.groups) == (0, {})
