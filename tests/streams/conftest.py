"""Handlers of these tests go with their module: an engine of another one would serve them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from perdure import Stream
from perdure.blocks.serving import _defined
from perdure.testing import Harness
from perdure.testing.fixtures import provide_harness
from tests.streams.events import Paid, Placed

numbers = count(1)


@pytest.fixture(autouse=True, scope="module")
def leave_no_handlers() -> Iterator[None]:
    """Handlers are known as long as they live, and the last test's live on until garbage is collected."""
    yield
    _defined._handlers.clear()


@pytest.fixture(params=["sqlite", "postgres"])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """An engine on each kind of store."""
    if request.param == "sqlite":
        yield from provide_harness(request, time_flies=False)
        return
    yield from provide_harness(request, time_flies=False, path=request.getfixturevalue("postgres_url"))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of a stream that no other test has: handlers of this one may live on until garbage is collected."""
    return f"orders-{next(numbers)}"


@pytest.fixture
def orders(name: str) -> Stream[Placed | Paid]:
    return Stream(name, Placed | Paid, key=lambda one: one.order)
