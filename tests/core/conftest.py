"""What the tests of the core share: a collector that looks at little, since several tests run it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def little_to_collect() -> Iterator[None]:
    """Leave what was loaded before out of the collector's sight."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
