"""Values as JSON: what goes through whole, and what is refused by name."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, Never, NewType, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.codec import json
from perdure.codec.json import check_hint, decoder, encode, is_plain
from perdure.errors import DefinitionError, NotDecodable, NotSerialisable, PayloadTooLarge


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Mixed(Enum):
    ONE = 1
    TWO = "two"


@dataclass
class Item:
    sku: str
    callback: object = None


@dataclass(frozen=True)
class Order:
    id: str
    items: list[Item] = field(default_factory=list[Item])
    price: float | None = None


@dataclass
class Tree:
    children: list[Tree]


@dataclass
class Tagged:
    tags: set[str]


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int


class Spot(msgspec.Struct):
    x: float


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


@attrs.define
class Parcel:
    weight: int
    stamps: list[str] = attrs.field(factory=list[str])


@attrs.define
class Secretive:
    name: str
    _secret: int = 0


class Customer(pydantic.BaseModel):
    name: str
    since: date = date(2020, 1, 1)
    tags: set[str] = set()
    score: float = 0.0
    extra: Any = None


class Company(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    vat: str = pydantic.Field(alias="vatNumber")
    founded: datetime
    people: list[Customer] = []


@dataclass
class Account:
    owner: Customer
    others: list[Customer]
    company: Company | None = None


class Address(TypedDict):
    street: str


class Pair(NamedTuple):
    first: int
    second: str = ""


class Named(NamedTuple):
    number: int
    anything: object


class Text(str):
    __slots__ = ()


T = TypeVar("T")
OrderId = NewType("OrderId", str)


@dataclass
class Box(Generic[T]):
    content: T


COMPANY = Company(vatNumber="X1", founded=datetime(2020, 1, 1, tzinfo=UTC), people=[Customer(name="ann")])

ROUND_TRIPS: list[tuple[object, Any]] = [
    (int, 1),
    (int, 2**63),
    (int, -(2**64)),
    (int, 10**100),
    (float, 0.1),
    (float, 1e300),
    (str, "äöü ☂ 🍐"),
    (bool, True),
    (type(None), None),
    (bytes, b"\x00\xff"),
    (datetime, datetime(2024, 2, 29, 12, 0, 0, 123456)),  # noqa: DTZ001
    (datetime, datetime(2024, 2, 29, tzinfo=UTC)),
    (date, date(2024, 2, 29)),
    (time, time(12, 30, 1)),
    (timedelta, timedelta(days=-3, microseconds=7)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=7)),
    (Colour, Colour.BLUE),
    (Level, Level.LOW),
    (Word, Word.YES),
    (list[int], [1, 2]),
    (set[str], {"a", "b"}),
    (frozenset[Colour], frozenset({Colour.RED, Colour.BLUE})),
    (set[Point], {Point(1, 2), Point(0, 3)}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (dict[str, int], {"b": 1, "a": 2}),
    (dict[int, str], {1: "a"}),
    (dict[UUID, int], {UUID(int=1): 1}),
    (Order, Order("17", [Item("pear")])),
    (Order, Order("17", price=None)),
    (Tree, Tree([Tree([])])),
    (Tagged, Tagged({"x", "y"})),
    (Point, Point(1, 2)),
    (Circle | Square, Square(2.0)),
    (Parcel, Parcel(3, ["a"])),
    (Customer, Customer(name="ann", tags={"x", "y"})),
    (Company, COMPANY),
    (Account, Account(Customer(name="ann"), [Customer(name="bob")], COMPANY)),
    (Customer | None, None),
    (Customer | Company, COMPANY),
    (Address, {"street": "Main"}),
    (Pair, Pair(1, "x")),
    (Box[int], Box(1)),
    (OrderId, "17"),
    (Literal["a", 1], 1),
    (Annotated[int, msgspec.Meta(gt=0)], 1),
    (Path, Path("a/b")),
    (PurePosixPath | None, PurePosixPath("/x")),
    (int | str | None, "x"),
    (Any, {"a": [1, 2.5, None, {"b": True}]}),
    (object, [1]),
    (Never, 1),
]


@pytest.mark.parametrize(("hint", "value"), ROUND_TRIPS, ids=[repr(hint)[:40] for hint, _ in ROUND_TRIPS])
def test_a_value_comes_back_equal_and_of_its_type(hint: object, value: object) -> None:
    data = encode(value, "value")

    found = decoder(hint)(data)

    assert found == value
    assert type(found) is type(value)


def _cycle() -> list[object]:
    value: list[object] = []
    value.append([value])
    return value


def _tangle() -> dict[str, object]:
    value: dict[str, object] = {}
    value["left"] = value["right"] = value
    return value


def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def _function() -> None: ...


class Custom:
    pass


DEEP = "call" + "[0]" * 200
REFUSED: list[tuple[object, str, str]] = [
    (_function, "call", "function is not serialisable"),
    (print, "call", "function is not serialisable"),
    (Order("1", [Item("a"), Item("b", _function)]), "call.items[1].callback", "function is not"),
    ({"a": [1, Custom()]}, "call['a'][1]", "Custom is not serialisable"),
    (Custom, "call", "the class Custom is not serialisable"),
    (iter([1]), "call", "list_iterator is not serialisable"),
    (1j, "call", "complex is not serialisable"),
    (deque([1]), "call", "deque is not serialisable"),
    (Text("a"), "call", "Text would come back as str"),
    (math.nan, "call", "nan is not a number"),
    ([1.0, None, -math.inf], "call[2]", "-inf is not a number"),
    (Order("1", price=math.nan), "call.price", "nan"),
    (Spot(math.nan), "call.x", "nan"),
    (Customer(name="x", score=math.inf), "call.score", "inf"),
    ([Customer(name="x", extra=[_function])], "call[0].extra[0]", "function is not"),
    (Account(Customer(name="x", extra=math.nan), []), "call.owner.extra", "nan"),
    ("a\ud800", "call", "lone surrogate"),
    ({"k": ["\udfff"]}, "call['k'][0]", "lone surrogate"),
    ({"\ud800": 1}, "call", "holds a lone surrogate"),
    ({(1, 2): 1}, "call", "the key (1, 2) is of type tuple"),
    ({None: 1}, "call", "the key None is of type NoneType"),
    ({math.nan: 1}, "call", "the key nan"),
    ({1: "a", "1": "b"}, "call", "the keys 1 and '1' are the same"),
    (Box({"x": {1: "a", "1": "b"}}), "call.content['x']", "are the same"),
    (10**5000, "call", "too many digits"),
    (_cycle(), "call[0][0]", "contains itself"),
    (_tangle(), "call['left']", "contains itself"),
    (_nested(201), DEEP, "more than 200 levels"),
    (_nested(5000), DEEP, "more than 200 levels"),
    (Secretive("a", 1), "call._secret", "private field"),
    (Box(Secretive("a", 1)), "call.content._secret", "private field"),
    ({frozenset({"a", "b"}): 1}, "call", "is of type frozenset"),
    ({1, math.inf}, "call{inf}", "inf is not a number"),
    (ValueError("x"), "call", "ValueError is not serialisable"),
    (Named(1, _function), "call.anything", "function"),
]


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_json_cannot_hold_is_refused_with_its_path(value: object, path: str, reason: str) -> None:
    with pytest.raises(NotSerialisable) as refused:
        encode(value, "call")

    assert refused.value.path == path
    assert reason in refused.value.reason


def test_200_levels_are_not_too_many() -> None:
    value = _nested(200)

    data = encode(value, "call")

    assert decoder(Any)(data) == value


def test_the_place_is_asked_for_only_when_a_value_is_refused() -> None:
    asked: list[int] = []

    def where() -> str:
        asked.append(1)
        return "charge(order)"

    encode(Order("1"), where)
    with pytest.raises(NotSerialisable, match=r"^charge\(order\)\.id: nan"):
        encode(Order(math.nan), where)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert asked == [1]


def test_a_payload_of_65_mib_is_refused_with_its_size() -> None:
    value = {"report": "x" * (65 * 1024 * 1024)}

    with pytest.raises(PayloadTooLarge) as refused:
        encode(value, "upload(document)")

    assert refused.value.path == "upload(document)"
    assert refused.value.size == 65 * 1024 * 1024 + len('{"report":""}')
    assert refused.value.limit == json.MAX_PAYLOAD


def test_dicts_keep_their_order_even_beside_sets() -> None:
    value = {"z": {2, 1}, "a": 1}

    data = encode(value, "value")

    assert data == b'{"z":[1,2],"a":1}'


SETS = """
import dataclasses, enum, pydantic, msgspec
from perdure.codec.json import encode
class Fruit(enum.Enum):
    PEAR = "pear"; FIG = "fig"; PLUM = "plum"
class Model(pydantic.BaseModel):
    tags: set[str]; deep: dict[str, list[set[str]]]
@dataclasses.dataclass(frozen=True)
class Tagged:
    tags: frozenset[str]
@dataclasses.dataclass
class Untyped:
    tags: object
class Struct(msgspec.Struct, frozen=True, rename="camel"):
    all_tags: frozenset[str]
words = frozenset("one two three four five six".split())
print(encode([
    words, {1, "a", None, 2.5}, set(Fruit), {Tagged(words)}, Untyped({"x": words}), Struct(words),
    Model(tags=words, deep={"a": [words]}), [[words]],
], "value").decode())
"""


def test_sets_are_written_the_same_whatever_the_hash_seed() -> None:
    def run(seed: str) -> bytes:
        path = os.pathsep.join(part for part in sys.path if part)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        return subprocess.run(
            [sys.executable, "-c", SETS], env=environment, check=True, capture_output=True
        ).stdout

    seen = {run(seed) for seed in ("1", "2", "3")}

    assert len(seen) == 1


MISFITS: list[tuple[object, bytes, str]] = [
    (int, b'"x"', "int: Expected `int`, got `str`."),
    (Order, b'{"id":"1","items":[{"sku":3}]}', "Order.items[0].sku: Expected `str`, got `int`."),
    (dict[str, int], b'{"a":"x"}', "dict[str, int][...]: Expected `int`, got `str`."),
    (Colour, b'"green"', "Colour: Expected a value of its enum or literal."),
    (list[int], b"[1,", "list[int]: Input data was truncated."),
    (Customer, b'{"name":1}', "Customer: "),
    (tuple[int, int], b"[1]", "tuple[int, int]: Expected `array` of length 2."),
    (str, b'"\xff"', "str: 'utf-8' codec can't decode"),
]


@pytest.mark.parametrize(("hint", "data", "said"), MISFITS, ids=lambda part: repr(part)[:30])
def test_json_that_does_not_fit_is_refused_with_its_path(hint: object, data: bytes, said: str) -> None:
    with pytest.raises(NotDecodable) as refused:
        decoder(hint)(data)

    assert str(refused.value).startswith(said)


def test_a_decoder_says_where_it_reads() -> None:
    decode = decoder(Order, "charge(order)")

    with pytest.raises(NotDecodable) as refused:
        decode(b'{"id":1}')

    assert refused.value.where == "charge(order).id"


def test_the_same_hint_gives_the_same_decoder() -> None:
    assert decoder(list[Order]) is decoder(list[Order])


def test_a_hint_that_cannot_be_hashed_still_decodes() -> None:
    hint = Annotated[int, ["not", "hashable"]]

    assert decoder(hint)(b"1") == 1


@dataclass
class WithCallback:
    callback: Callable[[], None]


@dataclass
class MaybeCallback:
    callback: Callable[[], None] | None = None


@pytest.mark.parametrize(
    "hint",
    [
        Custom,
        Callable[[], int],
        deque[int],
        OrderedDict[str, int],
        WithCallback,
        str | bytes,
        Order | dict[str, int],
        Mixed,
        complex,
        "Forward",
    ],
    ids=repr,
)
def test_a_hint_that_must_fail_is_refused_when_it_is_defined(hint: object) -> None:
    with pytest.raises(DefinitionError, match=r"^charge\(order\): "):
        check_hint(hint, "charge(order)")


@pytest.mark.parametrize(
    "hint", [hint for hint, _ in ROUND_TRIPS] + [MaybeCallback, list[Custom], Custom | None], ids=repr
)
def test_a_hint_that_may_work_is_let_pass(hint: object) -> None:
    check_hint(hint, "charge(order)")


@pytest.mark.parametrize("value", ["a", 1, True, None, 1.5, 2**70])
def test_immutable_json_values_are_plain(value: object) -> None:
    assert is_plain(value)
    assert decoder(Any)(encode(value, "value")) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, [], (), b"", Text("a"), Level.LOW, Decimal(1)])
def test_other_values_are_not_plain(value: object) -> None:
    assert not is_plain(value)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
)


@given(VALUES)
def test_any_json_value_comes_back_equal(value: object) -> None:
    found = decoder(Any)(encode(value, "value"))

    assert found == value


@given(
    st.recursive(
        st.none() | st.floats() | st.text() | st.integers() | st.sets(st.integers() | TEXTS),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.integers() | st.text(), inner, max_size=4)
        ),
    )
)
def test_any_value_is_refused_by_name_or_written_for_good(value: object) -> None:
    try:
        data = encode(value, "value")
    except NotSerialisable as refused:
        assert refused.path.startswith("value")  # noqa: PT017
    else:
        assert encode(decoder(Any)(data), "again") == data


@given(st.builds(Order, TEXTS, st.lists(st.builds(Item, TEXTS, VALUES)), st.none() | st.floats(-1e9, 1e9)))
def test_any_dataclass_comes_back_equal(order: Order) -> None:
    found = decoder(Order)(encode(order, "order"))

    assert found == order
