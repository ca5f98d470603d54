"""A check of JSON against a JSON Schema: the words that ours uses, and an error for any other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "null": (type(None),),
    "boolean": (bool,),
}  # fmt: skip
_NOTES = {"$schema", "$id", "$defs", "title", "description"}


class Schema:
    """A schema, and what it says of a value."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def wrongs(self, value: Any) -> list[str]:
        """What is wrong with a value, a sentence each."""
        return list(self._check(value, self._root, "$"))

    def _check(self, value: Any, schema: dict[str, Any], at: str) -> Iterator[str]:
        for word, said in schema.items():
            if word not in _NOTES:
                yield from getattr(self, f"_{word.lstrip('$')}")(value, said, at, schema)

    def _ref(self, value: Any, said: str, at: str, _: Any) -> Iterator[str]:
        yield from self._check(value, self._root["$defs"][said.rpartition("/")[2]], at)

    def _type(self, value: Any, said: Any, at: str, _: Any) -> Iterator[str]:
        kinds = [kind for name in ([said] if isinstance(said, str) else said) for kind in _TYPES[name]]
        if type(value) not in kinds:
            yield f"{at} is {value!r}, and not {said}"

    def _const(self, value: Any, said: Any, at: str, _: Any) -> Iterator[str]:
        if value != said:
            yield f"{at} is {value!r}, and not {said!r}"

    def _enum(self, value: Any, said: list[Any], at: str, _: Any) -> Iterator[str]:
        if value not in said:
            yield f"{at} is {value!r}, and none of {said}"

    def _pattern(self, value: Any, said: str, at: str, _: Any) -> Iterator[str]:
        if isinstance(value, str) and not re.search(said, value):
            yield f"{at} is {value!r}, and not like {said}"

    def _minimum(self, value: Any, said: int, at: str, _: Any) -> Iterator[str]:
        if isinstance(value, int) and value < said:
            yield f"{at} is {value}, below {said}"

    def _maximum(self, value: Any, said: int, at: str, _: Any) -> Iterator[str]:
        if isinstance(value, int) and value > said:
            yield f"{at} is {value}, above {said}"

    def _required(self, value: Any, said: list[str], at: str, _: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (f"{at} has no {name!r}" for name in said if name not in value)

    def _properties(self, value: Any, said: dict[str, Any], at: str, _: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, schema in said.items():
                if name in value:
                    yield from self._check(value[name], schema, f"{at}.{name}")

    def _additionalProperties(self, value: Any, said: Any, at: str, schema: Any) -> Iterator[str]:  # noqa: N802
        for name, item in value.items() if isinstance(value, dict) else ():
            if name not in schema.get("properties", {}):
                if said is False:
                    yield f"{at} has {name!r}, which the form does not know"
                else:
                    yield from self._check(item, said, f"{at}.{name}")

    def _items(self, value: Any, said: dict[str, Any], at: str, _: Any) -> Iterator[str]:
        for place, item in enumerate(value if isinstance(value, list) else ()):
            yield from self._check(item, said, f"{at}[{place}]")

    def _oneOf(self, value: Any, said: list[dict[str, Any]], at: str, _: Any) -> Iterator[str]:  # noqa: N802
        fitting = [schema for schema in said if not list(self._check(value, schema, at))]
        if len(fitting) != 1:
            yield f"{at} is {value!r}, and fits {len(fitting)} of {len(said)} forms"
