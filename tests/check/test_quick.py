"""The short form, when a workflow is decorated: it warns at the line, and never stands in the way."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from perdure import DeterminismWarning, workflow
from perdure.check import quick
from tests.check.corpus import faults, places

HEAD = "import time\nfrom perdure import step, workflow\n"
FAULTY = f"{HEAD}\n\n@workflow\nasync def asks() -> float:\n    return time.time()\n"

Load = Callable[[str], tuple[ModuleType, list[warnings.WarningMessage]]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes and imports a module; gives it with the warnings of its import."""

    def do(text: str) -> tuple[ModuleType, list[warnings.WarningMessage]]:
        path = tmp_path / f"module_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text, encoding="utf-8")
        return import_file(path)

    return do


def import_file(path: Path) -> tuple[ModuleType, list[warnings.WarningMessage]]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", DeterminismWarning)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        finally:
            del sys.modules[path.stem]
    return module, heard


def run(folder: Path, text: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "shop.py").write_text(text, encoding="utf-8")
    command = [sys.executable, *options, "-c", "import shop"]
    whole = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=whole, capture_output=True, text=True, check=False)


def test_a_fault_is_warned_of_at_its_line(load: Load) -> None:
    module, heard = load(FAULTY)

    (warning,) = heard
    assert warning.category is DeterminismWarning
    assert (warning.filename, warning.lineno) == (module.__file__, 7)
    assert str(warning.message) == (
        "asks: time.time() reads the machine's clock. [clock] "
        "Use perdure.now(), or asyncio.get_running_loop().time(): the run's own time."
    )


def test_a_function_beside_the_workflow_is_followed(load: Load) -> None:
    stamp = "def stamp():\n    return time.time()\n"
    text = f"{HEAD}{stamp}@workflow\nasync def asks() -> None:\n    print(stamp())\n"

    _, heard = load(text)

    assert [warning.lineno for warning in heard] == [4]


def test_a_comment_allows_a_line(load: Load) -> None:
    _, heard = load(FAULTY.replace("time.time()\n", "time.time()  # perdure: allow[clock] only shown\n"))

    assert heard == []


def test_a_workflow_inside_a_function_sees_what_stands_around_it(load: Load) -> None:
    text = f"""{HEAD}
def make(clock):
    @workflow
    async def asks() -> None:
        print(clock())
    return asks
make(time.time)
"""

    _, heard = load(text)

    assert [warning.lineno for warning in heard] == [7]


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("clocks", 0.8),
        ("chance", 0.9),
        ("surroundings", 0.9),
        ("loops", 0.9),
        ("sets", 0.8),
        ("state", 0.5),
        ("awaits", 0.9),
        ("shapes", 0.1),  # classes are not followed
    ],
)
def test_what_it_tells_of_the_corpus_is_true_and_most_of_what_there_is(name: str, share: float) -> None:
    (place,) = (place for place in places("faults") if place.stem == name)
    planted = {(fault.line, fault.rule) for fault in faults(place)}

    _, heard = import_file(place)

    told = {(warning.lineno, str(warning.message).partition("[")[2].partition("]")[0]) for warning in heard}
    assert told <= planted
    assert len(told) >= share * len(planted)


@pytest.mark.parametrize("name", ["plain", "calls", "allowed"])
def test_it_lets_clean_code_be(name: str) -> None:
    (place,) = (place for place in places("clean") if place.stem == name)

    _, heard = import_file(place)

    assert heard == []


def test_a_workflow_that_would_take_long_is_left_to_the_command(load: Load) -> None:
    long = FAULTY.replace("    return", "    print()\n" * 200 + "    return")

    _, heard = load(long)

    assert heard == []


def test_it_is_silent_where_there_is_no_source() -> None:
    names: dict[str, object] = {}

    exec(compile(FAULTY, "<nowhere>", "exec"), names)

    assert repr(names["asks"]) == "<workflow asks>"


def test_an_accident_of_its_own_does_not_reach_the_program(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall(self: object, function: object) -> None:
        raise RecursionError

    monkeypatch.setattr(quick.LiveModule, "parse", fall)

    module, heard = load(FAULTY)

    assert heard == []
    assert isinstance(module.asks, type(workflow(module.asks.fn)))


def test_code_that_is_defined_again_is_not_looked_at_again(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{HEAD}\ndef make():\n    @workflow\n    async def asks() -> float:\n        return time.time()\n"
    module, _ = load(text)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always", DeterminismWarning)
        module.make()
    looked: list[object] = []
    monkeypatch.setattr(quick.LiveModule, "parse", lambda self, function: looked.append(function))

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", DeterminismWarning)
        module.make()

    assert looked == []
    assert len(heard) == 1


def test_the_environment_turns_it_off(tmp_path: Path) -> None:
    answer = run(tmp_path, FAULTY, "-W", "error", PERDURE_CHECK="off")

    assert (answer.returncode, answer.stderr) == (0, "")


def test_an_optimised_start_goes_without(tmp_path: Path) -> None:
    program = (
        f"{FAULTY}\nimport sys\nassert False, 'not with -O'\nprint('perdure.check.quick' in sys.modules)\n"
    )

    answer = run(tmp_path, program, "-O", "-W", "error")

    assert (answer.returncode, answer.stdout) == (0, "False\n")


def test_a_warning_can_be_made_an_error(tmp_path: Path) -> None:
    answer = run(tmp_path, FAULTY, "-W", "error")

    assert answer.returncode == 1
    assert "DeterminismWarning: asks: time.time() reads the machine's clock." in answer.stderr


def test_importing_perdure_loads_nothing_of_it(tmp_path: Path) -> None:
    program = "import sys, perdure; print([name for name in sys.modules if name.startswith('perdure.check')])"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout == "[]\n"
