"""What all tests share: nothing but the way to the checkout, and a pytest inside the pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds `src`, `tests`, `docs` and the rest."""
    return Path(__file__).resolve().parent.parent
