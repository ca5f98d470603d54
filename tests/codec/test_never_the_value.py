"""What does not fit its type is told by its path and the rule that it breaks: its value may be a secret."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import Enum, IntEnum
from traceback import format_exception
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest

from perdure.codec.json import decoder
from perdure.errors import NotDecodable


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Owner(pydantic.BaseModel):
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    level: Level


WITH_SECRETS: list[tuple[object, bytes]] = [
    (Colour, b'"4111"'),
    (Level, b"4111"),
    (list[Literal["a", "b"]], b'["4111"]'),
    (list[Literal["a", "b"]], b'["4111 - at `$.there`"]'),
    (Literal[1, 2], b"4111"),
    (dict[Colour, int], b'{"4111":1}'),
    (Circle | Square, b'{"type":"4111"}'),
    (Circle, b'{"type":"4111"}'),
    (Annotated[str, msgspec.Meta(pattern="^a")], b'"4111"'),
    (Annotated[str, msgspec.Meta(max_length=2)], b'"4111"'),
    (Annotated[int, msgspec.Meta(lt=9)], b"4111"),
    (datetime, b'"4111"'),
    (UUID, b'"4111"'),
    (Decimal, b'"4111 pounds"'),
    (int, b'"4111"'),
    (Owner, b'{"pet":{"kind":"4111"},"level":1}'),
    (Owner, b'{"pet":{"kind":"cat"},"level":"4111"}'),
    (Cat | Dog, b'{"kind":"4111"}'),
]


@pytest.mark.parametrize(("hint", "data"), WITH_SECRETS, ids=lambda part: repr(part)[:40])
def test_what_does_not_fit_is_told_by_path_and_rule_and_never_by_its_value(hint: object, data: bytes) -> None:
    with pytest.raises(NotDecodable) as refused:
        decoder(hint)(data)

    assert "4111" not in "".join(format_exception(refused.value))
    assert "there" not in str(refused.value)
