"""What all tests share: nothing but the way to the checkout, and a pytest inside the pytest."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytest_plugins = ["pytester", "tests.postgres", "tests.temporal.server"]

# A shell lets what it starts in the background ignore Ctrl-C, and so would every program of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds `src`, `tests`, `docs` and the rest."""
    return Path(__file__).resolve().parent.parent
