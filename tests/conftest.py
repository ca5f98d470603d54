"""What all tests share: nothing but the way to the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds `src`, `tests`, `docs` and the rest."""
    return Path(__file__).resolve().parent.parent
