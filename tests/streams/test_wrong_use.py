"""What is wrong in a declaration is refused where it stands, and what is wrong in an append at the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    NotSerialisable,
    PerdureError,
    Retry,
    Stream,
    event,
    step,
    workflow,
)
from perdure.testing import Harness


@dataclass(frozen=True)
class Placed:
    order: str
    cents: int = 0


class Plain:
    """Nothing that JSON could keep."""


async def note(event: object) -> None: ...


async def fold(state: int, event: object) -> int:
    return state + 1


def fold_one(event: object) -> int:
    return 1


@workflow
async def ship(order: str) -> None: ...


def orders() -> Stream[Any]:
    return Stream("wrong-use", Placed, key=lambda placed: placed.order)


Wrong = Callable[[], object]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: event(Placed), r"@event stands on Placed without a name.*@event\('…'\)"),  # pyright: ignore[reportArgumentType]
        (lambda: event("placed", version="2"), "version='2'"),  # pyright: ignore[reportArgumentType]
        (lambda: Stream("plain", Plain), "Plain"),
        (lambda: Stream("keyed", Placed, key="order"), r"key='order' is no function.*key=lambda"),  # pyright: ignore[reportArgumentType]
        (lambda: Stream("kept", Placed, keep=90), r"keep=90.*timedelta\(days=90\)"),  # pyright: ignore[reportArgumentType]
        (lambda: orders().on(note), r"note\(\) without parentheses.*\.on\(\)"),  # pyright: ignore[reportArgumentType]
        (lambda: orders().on()(ship), r"workflow.*start_on"),
        (lambda: orders().window(initial=0, tumbling=60)(lambda state, _: state), "has no name"),
        (lambda: orders().on()(lambda _: None), "has no name"),
        (lambda: orders().on(retry=3), r"retry=3 is no Retry.*Retry\(attempts=3\)"),  # pyright: ignore[reportArgumentType]
        (lambda: step(retry=3)(note), r"retry=3 is no Retry"),  # pyright: ignore[reportCallIssue, reportArgumentType]
        (lambda: Retry(give_up_on=ValueError), r"give_up_on=\(ValueError,\)"),  # pyright: ignore[reportArgumentType]
        (lambda: Retry(attempts="3"), "attempts='3'"),  # pyright: ignore[reportArgumentType]
        (lambda: orders().window(initial=0, tumbling=60)(fold), r"fold\(\) is async"),
        (
            lambda: orders().window(initial=0, tumbling=60)(fold_one),
            r"fold_one\(\) .*state and the event",
        ),  # pyright: ignore[reportArgumentType]
        (lambda: Engine("sqlite:///no.db", handlers=[note]), r"note.*is no handler.*@stream\.on"),  # pyright: ignore[reportArgumentType]
        (lambda: Engine("sqlite:///no.db", handlers=orders().on()(note)), r"handlers=\["),  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(wrong: Wrong, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        wrong()


@pytest.mark.parametrize(
    ("append", "error", "says"),
    [
        (
            lambda it: it.append(orders(), Plain()),
            NotSerialisable,
            r"Plain.*of Placed.*Stream\('wr",
        ),
        (lambda it: it.append(orders(), Placed), NotSerialisable, r"class Placed.*Placed\(…\)"),
        (lambda it: it.append(orders(), Placed("1", "2")), NotSerialisable, r"`str`\. Nothing was appended"),  # pyright: ignore[reportArgumentType]
        (
            lambda it: it.append(orders(), Placed("1"), time="2024-05-17"),
            PerdureError,
            r"'2024-05-17'.*datetime",
        ),
        (lambda it: it.append("wrong-use", Placed("1")), PerdureError, r"takes a stream.*'wrong-use'"),
        (lambda it: it.append_batch("wrong-use", []), PerdureError, r"takes a stream.*'wrong-use'"),
        (
            lambda it: it.append_batch(orders(), Placed("1")),
            PerdureError,
            r"many.*append\(stream, value\)",
        ),
    ],
)
async def test_a_wrong_append_is_refused_and_writes_nothing(
    harness: Harness, append: Callable[[Harness], Any], error: type[PerdureError], says: str
) -> None:
    await harness.open_once()

    with pytest.raises(error, match=says):
        await append(harness)

    assert not harness.store.store.streams.events("wrong-use", after=0, limit=10).events


@pytest.mark.parametrize("key", [lambda placed: placed.customer, lambda placed: placed.cents])
async def test_a_key_that_cannot_be_told_is_refused_without_the_events_data(
    harness: Harness, key: Callable[[Placed], Any]
) -> None:
    secret: Stream[Placed] = Stream("wrong-key", Placed, key=key)

    with pytest.raises(NotSerialisable, match="key of a Placed") as refused:
        await harness.append(secret, Placed("4111 1111", 4200))

    assert "4111" not in str(refused.value)
    assert "4200" not in str(refused.value)
    assert "function" in refused.value.hint
