"""Columns as arrays in PostgreSQL's binary form: a statement takes a thousand rows in one go.

psycopg can make arrays of lists itself, but looks at each item to find a type, and
the type that it finds (int2, int4 …) depends on the numbers: each would be
another prepared statement.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from psycopg import Cursor
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper

from ...errors import StoreError

_INT8, _BYTEA, _TEXT = 20, 17, 25
_EMPTY: Final = struct.Struct(">iiI")
_HEAD: Final = struct.Struct(">iiIii")
_NUMBER: Final = struct.Struct(">iq").pack
_LENGTH: Final = struct.Struct(">i").pack
_NULL: Final = _LENGTH(-1)


class _Numbers(bytes):
    """An int8[]."""


class _Texts(bytes):
    """A text[]."""


class _Payloads(bytes):
    """A bytea[]."""


def numbers(values: Iterable[int | None]) -> _Numbers:
    """An array of int8."""
    items = [_NULL if value is None else _NUMBER(8, value) for value in values]
    return _Numbers(_head(len(items), _INT8) + b"".join(items))


def texts(values: Iterable[str | None]) -> _Texts:
    """An array of text. Raises StoreError for what PostgreSQL cannot keep as text."""
    parts = [_head(0, 0)]
    count = 0
    for value in values:
        count += 1
        if value is None:  # no text may be missing: the server says which is
            parts.append(_NULL)
            continue
        data = encoded(value)
        parts += (_LENGTH(len(data)), data)
    parts[0] = _head(count, _TEXT)
    return _Texts(b"".join(parts))


def payloads(values: Iterable[bytes | None]) -> _Payloads:
    """An array of bytea."""
    parts = [b""]
    count = 0
    for value in values:
        count += 1
        parts += (_NULL,) if value is None else (_LENGTH(len(value)), value)
    parts[0] = _head(count, _BYTEA)
    return _Payloads(b"".join(parts))


def typed(bindings: Sequence[object]) -> tuple[tuple[int, ...], list[bytes | None]]:
    """The types of what is bound to a statement, and its values as they are sent."""
    types: list[int] = []
    values: list[bytes | None] = []
    for value in bindings:
        kind, pack = _SENT.get(type(value)) or _sent_as(type(value))
        types.append(kind)
        values.append(pack(value))
    return tuple(types), values


def encoded(value: str) -> bytes:
    """UTF-8. Raises StoreError for what PostgreSQL cannot keep as text."""
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        raise _unfit(value, "half of a surrogate pair") from error
    if 0 in data:
        raise _unfit(value, "a NUL character")
    return data


def _as_it_is(value: bytes | None) -> bytes | None:
    return value


_SENT: Final[dict[type, tuple[int, Callable[[Any], bytes | None]]]] = {
    _Numbers: (1016, _as_it_is), _Texts: (1009, _as_it_is), _Payloads: (1001, _as_it_is),
    bytes: (_BYTEA, _as_it_is), type(None): (0, _as_it_is), int: (_INT8, struct.Struct(">q").pack),
    str: (_TEXT, encoded), bool: (16, struct.Struct(">?").pack),
}  # fmt: skip
"""The number of the type in the server, and how a value is made its binary form."""


def _sent_as(of: type[object]) -> tuple[int, Callable[[Any], bytes | None]]:
    """The same for a type of the user's: an id may be one of a StrEnum."""
    return next(_SENT[base] for base in of.__mro__ if base in _SENT)


def adapt(cursor: Cursor[Any]) -> None:
    """Have a cursor send these arrays, and every number and text as one and the same type.

    Not the connection: it is lent to steps, which bind values as on any other.
    """
    for kind, dumper in (
        (_Numbers, _NumbersDumper), (_Texts, _TextsDumper), (_Payloads, _PayloadsDumper),
        (int, Int8BinaryDumper), (str, _TextDumper),
    ):  # fmt: skip
        cursor.adapters.register_dumper(kind, dumper)


class _TextDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT

    def dump(self, obj: str) -> Buffer | None:
        return encoded(obj)


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> Buffer | None:
        return obj


class _NumbersDumper(_ArrayDumper):
    oid = 1016


class _TextsDumper(_ArrayDumper):
    oid = 1009


class _PayloadsDumper(_ArrayDumper):
    oid = 1001


def _head(count: int, item: int) -> bytes:
    # 1 dimension; whether any is NULL is not looked at by the server; the first has the number 1
    return _HEAD.pack(1, 1, item, count, 1) if count else _EMPTY.pack(0, 0, item)


def _unfit(value: str, what: str) -> StoreError:
    return StoreError(
        f"{value!r} has {what}, which PostgreSQL cannot keep in a text. Nothing was written.",
        hint="Take it out of the run's id, the name, the key or the tag.",
    )
