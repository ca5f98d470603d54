"""JSON Schema from types: closed, the same for all kinds of type, and with a firm fingerprint."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from perdure import DefinitionError
from perdure.schemas.making import fingerprint_of, schema_of


@dataclass
class Item:
    sku: str
    count: int = 1


@dataclass
class Order:
    """What a customer wants."""

    id: str
    items: list[Item]
    note: str | None = None
    tags: set[str] = field(default_factory=set)


def test_a_schema_says_what_fields_there_are_and_that_there_are_no_others() -> None:
    schema = schema_of(Order)

    assert schema["$ref"] == "#/$defs/Order"
    assert schema["$defs"]["Order"] == {
        "title": "Order",
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        },
        "required": ["id", "items"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("hint", "word"),
    [
        (datetime, "date-time"), (date, "date"), (timedelta, "duration"), (UUID, "uuid"),
        (Decimal, "decimal"), (Path, "path"),
    ],
)  # fmt: skip
def test_what_is_written_as_text_keeps_its_kind(hint: Any, word: str) -> None:
    assert schema_of(hint) == {"type": "string", "format": word}


def test_all_kinds_of_class_with_the_same_fields_have_the_same_fingerprint() -> None:
    @attrs.define
    class Attrs:
        sku: str
        count: int = 2

    class Struct(msgspec.Struct, kw_only=True):
        count: int = 3
        sku: str

    class Model(pydantic.BaseModel):
        count: int = pydantic.Field(7, title="How many", description="At least one.")
        sku: str

    found = {fingerprint_of(schema_of(kind)) for kind in (Item, Attrs, Struct, Model)}

    assert len(found) == 1


class Typed(TypedDict):
    sku: str


def test_a_fingerprint_is_another_when_a_field_is() -> None:
    kinds = [Item, Typed, Order, list[Item], dict[str, Item], str, int]

    assert len({fingerprint_of(schema_of(kind)) for kind in kinds}) == len(kinds)


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    program = (
        "from tests.schemas.test_making import Order\n"
        "from perdure.schemas.making import fingerprint_of, schema_of\n"
        "print(fingerprint_of(schema_of(Order)))"
    )
    root = str(Path(__file__).parents[2])

    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == fingerprint_of(schema_of(Order)) == "041826ff082e927b"


class Node(pydantic.BaseModel):
    name: str
    below: list[Node] = []


class Holder(pydantic.BaseModel):
    node: Node
    price: Decimal


def test_models_inside_models_and_dataclasses_are_followed() -> None:
    @dataclass
    class Outer:
        holder: Holder
        node: Node | None = None

    schema = schema_of(Outer)

    holder = schema["$defs"]["Holder"]
    assert holder["properties"]["node"]["$ref"].removeprefix("#/$defs/") in schema["$defs"]
    assert holder["properties"]["price"] == {"anyOf": [{"type": "number"}, {"type": "string"}]}
    assert schema["$defs"]["Node"]["properties"]["below"]["items"]["$ref"] in (
        "#/$defs/Node",
        "#/$defs/Node2",
    )


def test_a_type_without_a_schema_is_refused_by_name() -> None:
    class Socket:
        pass

    with pytest.raises(DefinitionError, match=r"Socket.*has no JSON Schema"):
        schema_of(Socket)
