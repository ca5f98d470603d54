"""The marker: a generator test is run once for each crash; a failure prints the line that runs it again."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import pytest
from perdure import RunFailed, Signal, step, workflow
from perdure.testing import Send, override

approval = Signal[str]("approval")
sent = []

@step
async def charge(order: str) -> str:
    sent.append(order)
    return f"receipt {order}"

@workflow
async def checkout(order: str) -> str:
    return await charge(order)

@workflow
async def waits(order: str) -> str:
    return await approval.receive()

@workflow
async def fails(order: str) -> str:
    raise LookupError(order)
"""

GOOD = """
@pytest.fixture
def worlds(tmp_path):
    return []

@pytest.mark.crash_everywhere
def test_a_result_comes_back(worlds):
    worlds.append("fresh")
    receipt = yield checkout("17")
    assert receipt == "receipt 17"
    assert len(worlds) > 0

@pytest.mark.crash_everywhere(kinds=["twice"])
def test_events_are_sent():
    who = yield waits("17"), Send(approval, "ann")
    assert who == "ann"

@pytest.mark.crash_everywhere(pairs=True)
@pytest.mark.parametrize("order", ["17", "18"])
def test_a_step_is_overridden(order):
    with override(charge, lambda order: "fake"):
        assert (yield checkout(order)) == "fake"

class TestFailures:
    @pytest.mark.crash_everywhere
    def test_an_error_is_raised_at_the_yield(self):
        with pytest.raises(RunFailed) as failure:
            yield fails("17")
        assert isinstance(failure.value.__cause__, LookupError)
"""

BAD = """
@pytest.mark.crash_everywhere
def test_an_order_is_charged_once():
    sent.clear()
    yield checkout("17")
    assert sent == ["17"]
"""

ALONE = ("-p", "no:asyncio", "-p", "no:anyio")


@pytest.fixture
def shop(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers")
    return pytester


def test_marked_generators_pass_when_all_is_right(shop: pytest.Pytester) -> None:
    shop.makepyfile(test_shop=PROGRAM + GOOD)

    result = shop.runpytest_subprocess(*ALONE)

    result.assert_outcomes(passed=5)


def test_a_failure_prints_one_line_that_runs_that_crash_alone(shop: pytest.Pytester) -> None:
    shop.makepyfile(test_shop=PROGRAM + BAD)

    result = shop.runpytest_subprocess(*ALONE)

    result.assert_outcomes(failed=1)
    line = "pytest test_shop.py::test_an_order_is_charged_once --crash='charge/1:after-effect'"
    result.stdout.fnmatch_lines([line, "*test_shop.py:*: AssertionError: assert ?'17', '17'? == ?'17'?"])
    result.stdout.no_fnmatch_line("*everywhere.py*")


@pytest.mark.parametrize(
    ("crash", "outcome"), [("charge/1:after-effect", "failed"), ("charge/1:after-record", "passed")]
)
def test_one_crash_can_be_run_alone(shop: pytest.Pytester, crash: str, outcome: str) -> None:
    shop.makepyfile(test_shop=PROGRAM + BAD)

    result = shop.runpytest_subprocess(f"--crash={crash}", *ALONE)

    result.assert_outcomes(**{outcome: 1})


def test_what_fails_without_a_crash_is_an_ordinary_failure(shop: pytest.Pytester) -> None:
    wrong = (
        "\n@pytest.mark.crash_everywhere\ndef test_wrong():\n    assert (yield checkout('17')) == 'nothing'\n"
    )
    shop.makepyfile(test_shop=PROGRAM + wrong)

    result = shop.runpytest_subprocess(*ALONE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*assert 'receipt 17' == 'nothing'"])
    result.stdout.no_fnmatch_line("*--crash=*")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def test_x():\n    pass", "*is no generator*"),
        ("def test_x():\n    yield 1", "*has yielded 1, which is not a call of a workflow*"),
        ("def test_x():\n    yield checkout('1')\n    yield checkout('2')", "*has yielded twice*"),
    ],
)
def test_what_is_no_crash_test_is_refused(shop: pytest.Pytester, body: str, said: str) -> None:
    shop.makepyfile(test_shop=f"{PROGRAM}\n@pytest.mark.crash_everywhere\n{body}\n")

    result = shop.runpytest_subprocess(*ALONE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([said])
