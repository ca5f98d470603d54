"""Handlers of these tests go with their module: an engine of another one would serve them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perdure.blocks.stream import _defined


@pytest.fixture(autouse=True, scope="module")
def leave_no_handlers() -> Iterator[None]:
    """Handlers are known as long as they live, and the last test's live on until garbage is collected."""
    yield
    _defined._handlers.clear()
