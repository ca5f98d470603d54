"""Which change of a type breaks whom: the table of the guide, row by row, in each kind of type."""

from __future__ import annotations

import enum
from dataclasses import dataclass, make_dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import attrs
import msgspec
import pydantic
import pytest

from perdure.schemas.comparing import compare
from perdure.schemas.making import schema_of

OK = ""
BACKWARD = "backward"
FORWARD = "forward"
BOTH = "backward forward"

Fields = dict[str, Any]
"""By name: a type, or a type and a default."""


def as_dataclass(fields: Fields) -> Any:
    given = [(n, *t) if isinstance(t, tuple) else (n, t) for n, t in fields.items()]
    return make_dataclass("Event", sorted(given, key=len), kw_only=True)


def as_struct(fields: Fields) -> Any:
    given = [(n, *t) if isinstance(t, tuple) else (n, t) for n, t in fields.items()]
    return msgspec.defstruct("Event", given, kw_only=True)


def as_model(fields: Fields) -> Any:
    return pydantic.create_model("Event", **fields)


def as_attrs(fields: Fields) -> Any:
    made = {n: attrs.field(default=t[1], type=t[0]) if isinstance(t, tuple) else attrs.field(type=t)
            for n, t in fields.items()}  # fmt: skip
    return attrs.make_class("Event", made, kw_only=True)


MAKERS = [as_dataclass, as_struct, as_model, as_attrs]


def broken(old: Any, new: Any, *, are_neighbours: bool = True) -> str:
    """Who is broken by the change, by any part of it."""
    changes = compare(schema_of(old), schema_of(new), are_neighbours=are_neighbours)
    return " ".join(sorted({side for change in changes for side in change.breaks}))


def rules(old: Any, new: Any) -> list[tuple[str, str, str]]:
    changes = compare(schema_of(old), schema_of(new))
    return [(change.path, change.rule, " ".join(sorted(change.breaks))) for change in changes]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class MoreColour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


TABLE = [
    ("add a field with a default", {"a": int}, {"a": int, "b": (str, "")}, OK),
    ("add a required field", {"a": int}, {"a": int, "b": str}, BACKWARD),
    ("remove an optional field", {"a": int, "b": (str, "")}, {"a": int}, OK),
    ("remove a required field", {"a": int, "b": str}, {"a": int}, FORWARD),
    ("rename a required field", {"a": int, "b": str}, {"a": int, "c": str}, BOTH),
    ("rename an optional field", {"a": int, "b": (str, "")}, {"a": int, "c": (str, "")}, BOTH),
    ("make a field required", {"a": (int, 1)}, {"a": int}, BACKWARD),
    ("make a field optional", {"a": int}, {"a": (int, 1)}, FORWARD),
    ("widen to number", {"a": int}, {"a": float}, FORWARD),
    ("narrow to integer", {"a": float}, {"a": int}, BACKWARD),
    ("allow none", {"a": int}, {"a": int | None}, FORWARD),
    ("refuse none", {"a": int | None}, {"a": int}, BACKWARD),
    ("allow another type", {"a": int}, {"a": int | str}, FORWARD),
    ("allow anything", {"a": int}, {"a": Any}, FORWARD),
    ("allow not everything", {"a": Any}, {"a": int}, BACKWARD),
    ("another type", {"a": int}, {"a": str}, BOTH),
    ("text to a time", {"a": str}, {"a": datetime}, BACKWARD),
    ("a time to text", {"a": datetime}, {"a": str}, FORWARD),
    ("add an enum value", {"a": Colour}, {"a": MoreColour}, FORWARD),
    ("remove an enum value", {"a": MoreColour}, {"a": Colour}, BACKWARD),
    ("an enum to text", {"a": Literal["x"]}, {"a": str}, FORWARD),
    ("a value instead of another", {"a": Literal["x"]}, {"a": Literal["y"]}, BOTH),
    ("items of another type", {"a": list[int]}, {"a": list[str]}, BOTH),
    ("items that are wider", {"a": list[int]}, {"a": list[float]}, FORWARD),
    ("values that are narrower", {"a": dict[str, float]}, {"a": dict[str, int]}, BACKWARD),
    ("a list to a set", {"a": list[int]}, {"a": set[int]}, BACKWARD),
    ("one place more", {"a": tuple[int, str]}, {"a": tuple[int, str, int]}, BOTH),
    ("nothing", {"a": int, "b": (list[int] | None, None)}, {"b": (list[int] | None, None), "a": int}, OK),
    ("another default", {"a": (int, 1)}, {"a": (int, 2)}, OK),
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("old", "new", "sides"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_change_breaks_who_the_table_says(make: Any, old: Fields, new: Fields, sides: str) -> None:
    assert broken(make(old), make(new)) == sides


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (msgspec.Meta(ge=1), msgspec.Meta(ge=2)),
        (msgspec.Meta(le=9), msgspec.Meta(le=8)),
        (msgspec.Meta(), msgspec.Meta(gt=0)),
        (msgspec.Meta(ge=1), msgspec.Meta(ge=1, multiple_of=2)),
    ],
)
def test_a_tighter_bound_breaks_backward_and_a_wider_one_forward(
    old: msgspec.Meta, new: msgspec.Meta
) -> None:
    tighter, wider = as_struct({"a": Annotated[int, new]}), as_struct({"a": Annotated[int, old]})

    assert broken(wider, tighter) == BACKWARD
    assert broken(tighter, wider) == FORWARD


def test_a_longer_text_and_another_pattern_are_bounds_too() -> None:
    short, long = Annotated[str, msgspec.Meta(max_length=3)], Annotated[str, msgspec.Meta(max_length=4)]
    one, other = Annotated[str, msgspec.Meta(pattern="a")], Annotated[str, msgspec.Meta(pattern="b")]

    assert rules(short, long) == [("$", "bound enlarged", FORWARD)]
    assert rules(one, other) == [("$", "bound changed", BOTH)]


def test_a_change_deep_inside_is_named_by_its_path() -> None:
    old, new = (
        as_dataclass({"items": dict[str, list[inner | None]]})
        for inner in (as_struct({"sku": str}), as_struct({"sku": str, "count": int}))
    )

    assert rules(old, new) == [("$.items.*[*].count", "required field added", BACKWARD)]


@dataclass
class Tree:
    name: str
    below: list[Tree]


@dataclass
class NewTree:
    name: str
    below: list[NewTree]
    colour: str


def test_a_type_that_holds_itself_is_compared_once() -> None:
    assert rules(Tree, NewTree) == [("$.colour", "required field added", BACKWARD)]


def test_an_optional_field_is_taken_for_renamed_only_between_neighbours() -> None:
    old, new = as_struct({"b": (str, "")}), as_struct({"c": (str, "")})

    assert broken(old, new) == BOTH
    assert broken(old, new, are_neighbours=False) == OK
    assert broken(old, as_struct({"c": (int, 0)})) == OK  # not of the same type


def test_a_field_with_an_alias_for_its_old_name_can_be_read() -> None:
    class Old(pydantic.BaseModel):
        cents: int

    class New(pydantic.BaseModel):
        amount: int = pydantic.Field(alias="cents")

    assert rules(Old, New) == [("$.amount", "field renamed, with an alias", FORWARD)]


@pytest.mark.parametrize("library", ["msgspec", "pydantic"])
def test_a_reader_that_refuses_what_it_does_not_know_breaks_where_others_do_not(library: str) -> None:
    if library == "msgspec":
        made = [
            msgspec.defstruct("Event", [("a", int), *more], forbid_unknown_fields=True)
            for more in ([], [("b", str, "")])
        ]
    else:
        config = pydantic.ConfigDict(extra="forbid")
        made = [
            pydantic.create_model("Event", __config__=config, **more)
            for more in ({"a": int}, {"a": int, "b": (str, "")})
        ]
    small, large = made

    assert broken(small, large) == FORWARD
    assert broken(large, small) == BACKWARD


def test_members_of_a_union_are_told_by_their_tags() -> None:
    class Cat(msgspec.Struct, tag=True):
        lives: int

    class Dog(msgspec.Struct, tag=True):
        tricks: int

    class NewDog(msgspec.Struct, tag="Dog"):
        tricks: int
        age: int

    assert rules(Cat | Dog, Cat | NewDog) == [("$.age", "required field added", BACKWARD)]
    assert rules(Cat, Cat | Dog) == [("$", "type widened", FORWARD)]
    assert rules(Cat | Dog, Dog) == [("$", "type narrowed", BACKWARD)]


def test_a_struct_that_is_an_array_may_grow_at_its_end() -> None:
    class Old(msgspec.Struct, array_like=True):
        a: int

    class New(msgspec.Struct, array_like=True):
        a: int
        b: str = ""

    class Pair(NamedTuple):
        a: int
        b: str = ""

    assert broken(Old, New) == OK
    assert broken(New, Old) == OK
    assert broken(tuple[int], Pair) == FORWARD


@pytest.mark.parametrize("make", MAKERS)
def test_what_is_said_of_readers_is_what_they_do(make: Any) -> None:
    """The rows of the table against the readers themselves, with data that the change is about."""
    from perdure.codec.json import decoder

    small, large = make({"a": int}), make({"a": int, "b": (str, "")})
    needy = make({"a": int, "b": str})

    assert decoder(small)(b'{"a":1,"b":"x"}').a == 1
    assert decoder(large)(b'{"a":1}').b == ""
    with pytest.raises(Exception, match="b"):
        decoder(needy)(b'{"a":1}')
