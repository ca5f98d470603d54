"""Values as JSON, by their type hints: what may cross a boundary, and what is refused.

The law: a value is written whole or refused by name. It never loses a part in
silence (NaN, private fields, keys that clash), and the same value gives the same
bytes in every process, since calls are recognised by a digest of theirs: sets
are written in order. Dicts keep the order in which they were filled.

Read back without a hint, values are what JSON knows: text, numbers, lists,
dicts with text keys. With a hint they are of that type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from typing import Any

import msgspec

from ..errors import DefinitionError, NotDecodable, NotSerialisable, PayloadTooLarge
from .careful import LEAVES, is_ordinary, rewrite
from .hints import PLAIN, is_calm_type, is_union_of_models, normalise, unreadable
from .hooks import decode_hook, union_reader, write

MAX_PAYLOAD = 64 * 1024 * 1024
"""Bytes of JSON that one value may take."""

_READABLE = "Give it a hint that JSON can be read as, or pass the data that it is made of."

_AT = re.compile(r" - at `(?:key`? in `?)?\$((?:(?! - at `).)*)`$", re.DOTALL)
_WITH_VALUE = (
    (re.compile(r"Invalid enum value .*", re.DOTALL), "Expected a value of its enum or literal"),
    (re.compile(r"Invalid value .*", re.DOTALL), "Expected a tag of its union"),
)
"""What msgspec says with the value, and what is said here."""


def encode(value: object, where: str | Callable[[], str]) -> bytes:
    """Return a value as JSON.

    Raises NotSerialisable with the path of what cannot be written, which begins
    with `where`, and PayloadTooLarge above MAX_PAYLOAD.
    """
    try:
        data = write(value)
        if not _is_lossless(value, data):
            data = None
    except Exception:
        data = None
    if data is None:
        data = _encode_carefully(value, where() if callable(where) else where)
    if len(data) > MAX_PAYLOAD:
        raise PayloadTooLarge(where() if callable(where) else where, size=len(data), limit=MAX_PAYLOAD)
    return data


def _is_lossless(value: object, data: bytes) -> bool:
    kind = type(value)
    if kind in LEAVES:
        return True
    # NaN is written as null: without a null there is none.
    return (is_calm_type(kind) and data.find(b"null") < 0) or is_ordinary(value)


def _encode_carefully(value: object, where: str) -> bytes:
    try:
        return write(rewrite(value, where))
    except NotSerialisable:
        raise
    except RecursionError as error:
        raise NotSerialisable(where, "the value is nested too deeply") from error
    except Exception as error:
        raise NotSerialisable(where, f"{type(error).__qualname__}: {error}") from error


def decoder(hint: object, where: str = "") -> Callable[[bytes], Any]:
    """Return the function that reads JSON as this hint; the same one for the same hint.

    It raises NotDecodable with the path of what does not fit, which begins with
    `where` (else the name of the type). Raises DefinitionError for a hint that
    no JSON can be read as.
    """
    try:
        return _decoder(hint, where)
    except TypeError:  # a hint that cannot be hashed
        return _make_decoder(hint, where)


def _make_decoder(hint: object, where: str) -> Callable[[bytes], Any]:
    read = _reader(hint, where)
    place = where or hint_name(hint)

    def decode(data: bytes) -> Any:
        try:
            return read(data)
        except Exception as error:
            failed = error
        raise _not_decodable(place, failed)

    return decode


_decoder = lru_cache(maxsize=4096)(_make_decoder)


def _reader(hint: object, where: str) -> Callable[[bytes], Any]:
    hint = normalise(hint)
    try:
        return msgspec.json.Decoder(hint, dec_hook=decode_hook).decode
    except Exception as error:  # TypeError, or NameError for a name inside the type
        if is_union_of_models(hint):
            return union_reader(hint)
        raise DefinitionError(
            f"{where or hint_name(hint)}: JSON cannot be read as {hint_name(hint)}: {error}.",
            hint=_READABLE,
        ) from error


def _not_decodable(where: str, error: Exception) -> NotDecodable:
    """With the path and the rule, never the value: it may be a secret, and this is logged."""
    reason = str(error) or type(error).__qualname__
    if found := _AT.search(reason):
        where, reason = where + found[1], reason[: found.start()]
    with_value = [rule for form, rule in _WITH_VALUE if form.fullmatch(reason)]
    if isinstance(error, msgspec.ValidationError) and with_value and error.__cause__ is None:
        return NotDecodable(where, with_value[0])
    if not isinstance(error, ValueError):
        reason = f"{type(error).__qualname__}: {reason}"
    failed = NotDecodable(where, reason.rstrip("."))
    failed.__cause__ = error
    return failed


def check_hint(hint: object, where: str) -> None:
    """Raise DefinitionError if no value of this hint can ever be written and read back."""
    _reader(hint, where)
    hint = normalise(hint)
    if hint is Any or is_union_of_models(hint):
        return
    if name := unreadable(hint):
        raise DefinitionError(f"{where}: a {name} cannot be written as JSON and read back.", hint=_READABLE)


def hint_name(hint: object) -> str:
    """Return a hint as people write it: `list[Order]`."""
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        return hint.__qualname__
    return re.sub(r"\b(?:\w+\.|<locals>\.)+(?=\w)", "", str(hint))


def is_plain(value: object) -> bool:
    """Whether a value is immutable and the same after a round trip without a hint."""
    kind = type(value)
    return kind in PLAIN and (kind is not float or isfinite(value))  # pyright: ignore[reportArgumentType]
