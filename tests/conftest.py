"""What all tests share: nothing but the way to the checkout, and a pytest inside the pytest."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from perdure.blocks.serving import _defined

pytest_plugins = ["pytester", "tests.postgres", "tests.temporal.server"]

# A shell lets what it starts in the background ignore Ctrl-C, and so would every program of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: one that began last would hold up the end.

    What talks to a server says the same on every interpreter: once is enough.
    """
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
    for item in items:
        if "postgres" in item.nodeid or "temporal" in item.nodeid:
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """What programs of tests define is for processes of their own: engines of other tests would serve it."""
    _defined._handlers.clear()


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds `src`, `tests`, `docs` and the rest."""
    return Path(__file__).resolve().parent.parent
