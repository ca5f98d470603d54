"""What each mode of compatibility asks for, beside which versions, and what bridges excuse."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from perdure import DefinitionError, Stream
from perdure.schemas.compatibility import Bridges, Compat, breaks_of, tell_breaks
from perdure.schemas.making import Schema, schema_of
from tests.streams.events import Placed


def schema(**fields: Any) -> Schema:
    return schema_of(msgspec.defstruct("Event", list(fields.items()), kw_only=True))


NEEDS_MORE = {1: schema(a=int), 2: schema(a=int, b=str)}
"""Version 2 cannot read 1."""
HAS_LESS = {1: schema(a=int, b=str), 2: schema(a=int)}
"""Version 1 cannot read 2."""
BACK_AGAIN = {1: schema(a=str), 2: schema(), 3: schema(a=int)}
"""Version 3 goes with 2 as version 1 does, and not with 1."""


def broken(
    schemas: dict[int, Schema], version: int, compat: Compat, **more: Any
) -> list[tuple[int, int, str]]:
    return sorted({(one.older, one.newer, one.side) for one in breaks_of(schemas, version, compat, **more)})


@pytest.mark.parametrize("compat", get_args(Compat))
def test_a_mode_asks_for_its_sides(compat: Compat) -> None:
    name = compat.removesuffix("_transitive")

    assert bool(broken(NEEDS_MORE, 2, compat)) == (name in ("backward", "full"))
    assert bool(broken(HAS_LESS, 2, compat)) == (name in ("forward", "full"))


def test_a_transitive_mode_asks_for_all_versions_and_the_others_for_the_next() -> None:
    gone_and_back = {1: schema(a=int), 2: schema(a=int, b=(str | None)), 3: schema(a=str)}
    far = {1: BACK_AGAIN[1], 3: BACK_AGAIN[3]}

    assert {one[0] for one in broken(gone_and_back, 3, "full_transitive")} == {1, 2}
    assert {one[0] for one in broken(gone_and_back, 3, "full")} == {2}
    assert (1, 3, "backward") in broken(BACK_AGAIN, 3, "backward_transitive")
    assert (1, 3, "backward") not in broken(BACK_AGAIN, 3, "backward")
    assert (1, 3, "backward") in broken(far, 3, "backward")


def test_an_older_version_that_comes_later_is_judged_beside_the_newer() -> None:
    assert broken(NEEDS_MORE, 1, "full_transitive") == [(1, 2, "backward")]


def test_casters_excuse_the_side_that_they_bridge_and_only_without_a_gap() -> None:
    up, down = frozenset({1}), frozenset({2})

    assert broken(NEEDS_MORE, 2, "full", bridges=Bridges(up, frozenset())) == []
    assert broken(NEEDS_MORE, 2, "full", bridges=Bridges(frozenset(), down)) == [(1, 2, "backward")]
    assert broken(HAS_LESS, 2, "full", bridges=Bridges(frozenset(), down)) == []
    far = {1: NEEDS_MORE[1], 3: NEEDS_MORE[2]}
    assert broken(far, 3, "backward", bridges=Bridges(up, frozenset())) == [(1, 3, "backward")]


def test_only_the_versions_that_count_are_judged() -> None:
    assert broken(NEEDS_MORE, 2, "full", others=[]) == []


def test_a_break_says_the_path_the_rule_and_the_side() -> None:
    (one,) = breaks_of(NEEDS_MORE, 2, "full")

    assert str(one) == (
        "$.b: required field added (it has no default): code of version 2 cannot read events of version 1"
    )


def test_a_change_that_breaks_both_sides_is_told_once() -> None:
    renamed = {1: schema(a=int), 2: schema(b=int)}

    told = tell_breaks(breaks_of(renamed, 2, "full"))

    assert len([one for one in told if one.startswith("$.b")]) == 1
    assert told[0].endswith(
        "code of version 2 cannot read events of version 1, nor code of version 1 events of version 2"
    )


def test_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(DefinitionError, match="compat='total' is no mode"):
        Stream("orders", Placed, compat="total")  # pyright: ignore[reportArgumentType]
