"""A type of event that was changed, and kept its version."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from perdure import DefinitionError, Event, Stream, event
from perdure.blocks.serving import _defined
from perdure.schemas.compatibility import Compat
from perdure.testing import Harness


def make(**fields: Any) -> Any:
    """A type of event, version 1."""
    return event("thing")(msgspec.defstruct("Thing", list(fields.items()), kw_only=True, frozen=True))


def listen(stream: Stream[Any]) -> list[Any]:
    """A handler of all events of the stream, and what it is given."""
    seen: list[Any] = []

    @stream.on()
    async def note(event: Event[Any]) -> None:
        seen.append(event.data)

    seen.append(note)  # a handler lives as long as somebody has it
    return seen


@pytest.mark.parametrize(("compat", "is_refused"), [("full_transitive", True), ("none", False)])
async def test_an_engine_does_not_start_with_a_type_that_was_changed_without_a_new_version(
    harness: Harness, name: str, compat: Compat, is_refused: bool
) -> None:
    first, changed = make(a=int), make(b=int)
    await harness.append(Stream(name, first, compat=compat), first(a=1))
    listener = listen(Stream(name, changed, compat=compat))

    says = r"version 1 is not what it was.*cannot read: \$\.b: .*version=2\), with an @upcast"
    with pytest.raises(DefinitionError, match=says) if is_refused else nullcontext():
        await harness.restart()
    _defined._handlers.clear()

    assert listener[1:] == []


async def test_a_type_that_reads_what_is_kept_starts_though_it_was_changed(
    harness: Harness, name: str
) -> None:
    first, changed = make(a=int, b=int), make(a=int)
    await harness.append(Stream(name, first), first(a=1, b=2))
    listener = listen(Stream(name, changed))

    await harness.restart()
    await harness.settle()

    assert listener[1:] == [changed(a=1)]
