"""The pytest plugin: its fixtures work under whichever plugin runs async tests; failures show the journal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio
import pytest
from perdure import RunStatus, Signal, step, workflow

approval = Signal[str]("approval")

@step
async def charge(order: str) -> str:
    return f"receipt for {order}"

@workflow
async def checkout(order: str) -> str:
    receipt = await charge(order)
    await asyncio.sleep(30 * 86_400)
    return receipt
"""

TESTS = """
async def test_a_month_passes(harness):
    run = await harness.start(checkout("17"), id="17")
    await harness.advance(days=29)
    assert await run.status() is RunStatus.RUNNING
    await harness.advance(days=1)
    assert await run.result() == "receipt for 17"

async def test_time_flies(flying_harness):
    assert await flying_harness.run(checkout("18")) == "receipt for 18"

def test_a_plain_test_is_left_alone():
    pass
"""

ALONE = ("-p", "no:asyncio", "-p", "no:anyio")
STRICT = "asyncio_default_fixture_loop_scope = function"
AUTO = f"asyncio_mode = auto\n{STRICT}"
EACH_IS_ASYNC = TESTS.replace("def test_a_plain", "async def test_a_plain")


def run(pytester: pytest.Pytester, source: str, *options: str, ini: str = "") -> pytest.RunResult:
    pytester.makeini(f"[pytest]\nfilterwarnings = error\n{ini}")
    pytester.makepyfile(test_shop=PROGRAM + source)
    return pytester.runpytest_subprocess(*options)


def test_async_tests_run_without_any_other_plugin(pytester: pytest.Pytester) -> None:
    result = run(pytester, TESTS, *ALONE)

    result.assert_outcomes(passed=3)


def test_async_tests_that_do_not_use_the_fixtures_are_left_to_others(pytester: pytest.Pytester) -> None:
    result = run(pytester, "async def test_nothing():\n    pass\n", *ALONE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*async def functions are not natively supported*"])


def test_the_strict_mode_of_pytest_asyncio_runs_what_is_marked(pytester: pytest.Pytester) -> None:
    result = run(pytester, "pytestmark = pytest.mark.asyncio\n" + EACH_IS_ASYNC, ini=STRICT)

    result.assert_outcomes(passed=3)


def test_what_is_not_marked_runs_beside_the_strict_mode(pytester: pytest.Pytester) -> None:
    result = run(pytester, TESTS, ini=STRICT)

    result.assert_outcomes(passed=3)


def test_the_auto_mode_of_pytest_asyncio_runs_them(pytester: pytest.Pytester) -> None:
    result = run(pytester, TESTS, ini=AUTO)

    result.assert_outcomes(passed=3)


def test_a_fixture_of_the_users_may_talk_to_the_harness(pytester: pytest.Pytester) -> None:
    source = """
@pytest.fixture
async def run(harness):
    yield await harness.start(checkout("17"), id="17")

async def test_the_run_is_there(run, harness):
    await harness.advance(days=30)
    assert await run.result() == "receipt for 17"
"""
    result = run(pytester, source, ini=AUTO)

    result.assert_outcomes(passed=1)


def test_anyio_runs_what_is_marked(pytester: pytest.Pytester) -> None:
    source = """
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture
async def run(harness):
    yield await harness.start(checkout("17"), id="17")

async def test_the_run_is_there(run, harness):
    await harness.advance(days=30)
    assert await run.result() == "receipt for 17"
"""
    result = run(pytester, source + EACH_IS_ASYNC, "-p", "no:asyncio")

    result.assert_outcomes(passed=4)


def test_anyio_and_pytest_asyncio_can_stand_side_by_side(pytester: pytest.Pytester) -> None:
    source = """
@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_with_anyio(harness):
    await harness.start(checkout("17"), id="17")
    await harness.advance(days=30)

@pytest.mark.asyncio
async def test_with_asyncio(harness):
    await harness.start(checkout("17"), id="17")
    await harness.advance(days=30)
"""
    result = run(pytester, source, ini=STRICT)

    result.assert_outcomes(passed=2)


def test_methods_and_parameters_work(pytester: pytest.Pytester) -> None:
    source = """
class TestShop:
    @pytest.mark.parametrize("order", ["17", "18"])
    async def test_an_order(self, harness, order, tmp_path):
        await harness.start(checkout(order), id=order)
        await harness.settle()
        assert [step.result for step in harness.steps(order)] == [f"receipt for {order}"]
"""
    result = run(pytester, source, *ALONE)

    result.assert_outcomes(passed=2)


def test_a_failure_shows_the_journal_of_each_run(pytester: pytest.Pytester) -> None:
    source = """
async def test_wrong(harness):
    await harness.start(checkout("17"), id="order-17")
    await harness.settle()
    assert False, "on purpose"
"""
    result = run(pytester, source, *ALONE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*Captured perdure call*",
            "run 'order-17' (checkout) is running",
            '*step charge (0/0/charge) → "receipt for 17"',
        ]
    )


def test_a_test_that_passes_leaves_no_file_behind(pytester: pytest.Pytester) -> None:
    source = """
import pathlib
async def test_right(harness):
    assert pathlib.Path(harness.url.removeprefix("sqlite:///")).exists()
    pathlib.Path("where").write_text(harness.url.removeprefix("sqlite:///"))
"""
    run(pytester, source, *ALONE).assert_outcomes(passed=1)

    file = Path((pytester.path / "where").read_text())
    assert not file.parent.exists()


def test_an_engine_that_a_fixture_opens_after_the_test_is_dropped(pytester: pytest.Pytester) -> None:
    source = """
import threading

@pytest.fixture
async def opens_again(harness):
    yield
    await harness.open()

async def test_one(harness, opens_again):
    pass

def test_after_it():
    assert [thread.name for thread in threading.enumerate() if "committer" in thread.name] == []
"""
    result = run(pytester, source, ini=AUTO)

    result.assert_outcomes(passed=2)


def test_a_session_that_does_not_use_the_plugin_does_not_import_perdure() -> None:
    program = (
        "import sys, pytest_perdure; print(*(name for name in sys.modules if name.startswith('perdure')))"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == ""


LEFT_BEHIND = """
import gc
import weakref

engines = []

async def test_one(harness):
    engines.append(weakref.ref(harness.engine))

async def test_another(harness):
    del harness
    gc.collect()
    assert [engine() for engine in engines] == [None]
"""


def test_an_engine_does_not_outlive_its_test(pytester: pytest.Pytester) -> None:
    result = run(pytester, LEFT_BEHIND, *ALONE)

    result.assert_outcomes(passed=2)
