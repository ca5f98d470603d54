"""Perdure's pytest plugin, as pytest loads it: the names, and nothing that costs anything.

It stands beside the package, and not in it, because pytest imports its plugins in
every session, also of projects that never use them: `import perdure` waits until a
test asks for a fixture. What the fixtures do is in `perdure.testing.fixtures`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from perdure.testing import Harness

_NAMES = ("harness", "flying_harness")


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Generator[Harness]:
    """A Perdure engine on a file of its own, whose time stands still until the test moves it."""
    from perdure.testing.fixtures import provide_harness

    yield from provide_harness(request, time_flies=False)


@pytest.fixture
def flying_harness(request: pytest.FixtureRequest) -> Generator[Harness]:
    """The same, whose time goes by itself to the next moment for which something waits."""
    from perdure.testing.fixtures import provide_harness

    yield from provide_harness(request, time_flies=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Open and close the engines in the event loop of the test, whoever runs it."""
    if isinstance(item, pytest.Function) and any(name in item.funcargs for name in _NAMES):
        from perdure.testing.fixtures import open_inside

        open_inside(item)
    return (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say `--crash`."""
    group = parser.getgroup("perdure")
    group.addoption(
        "--crash",
        metavar="SPOT",
        help="of tests marked crash_everywhere, run this crash alone: charge/1:after-effect",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say `crash_everywhere`."""
    config.addinivalue_line(
        "markers",
        "crash_everywhere(kinds=…, pairs=False): a generator test that yields a workflow call, "
        "run once for each place at which the run can be crashed",
    )


def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Function] | None:
    """Collect marked generators, which pytest itself refuses."""
    marks = getattr(obj, "pytestmark", ())
    if any(mark.name == "crash_everywhere" for mark in marks) and collector.istestfunction(obj, name):
        # There is no public way to collect what pytest itself would not.
        collect = cast(Any, collector)._genfunctions
        return list(collect(name, obj))
    return None


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run what is ours: marked generators, and async tests that no other plugin has taken."""
    if pyfuncitem.get_closest_marker("crash_everywhere") is not None:
        from perdure.testing.crashing.marker import run_marked

        return run_marked(pyfuncitem)
    if any(name in pyfuncitem.funcargs for name in _NAMES):
        from perdure.testing.fixtures import run_if_async

        return run_if_async(pyfuncitem)
    return None
