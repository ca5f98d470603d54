"""Exceptions as JSON: themselves where their type is known, and never a second failure."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import errors
from perdure.codec.failures import (
    MAX_FAILURE,
    decode_failure,
    describe_failure,
    encode_failure,
    failure_lines,
)
from perdure.errors import ForeignError, PerdureError


class Shelf(Enum):
    TOP = "top"


@dataclass
class Line:
    sku: str


class OutOfStock(Exception):
    """With an __init__ that no stored data could call."""

    line: Line

    def __init__(self, sku: str, *, left: int, shelf: Shelf = Shelf.TOP) -> None:
        super().__init__(f"no more {sku}")
        self.sku = sku
        self.left = left
        self.line = Line(sku)


class Declined(Exception):
    def __init__(self, amount: Decimal, shelf: Shelf) -> None:
        self.amount = amount
        self.shelf = shelf

    def __str__(self) -> str:
        return f"declined {self.amount}"


class DiskError(OSError):
    pass


class Rejected(Exception):
    pass


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


SAME: list[BaseException] = [
    ValueError("x"),
    ValueError(),
    ValueError("", 0, False, None, []),
    KeyError("k"),
    OutOfStock("pears", left=3),
    Declined(Decimal("1.50"), Shelf.TOP),
    OSError(2, "No such file", "/a"),
    FileNotFoundError(2, "No such file", "/a"),
    DiskError(28, "full"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ImportError("no", name="shop", path="/x"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError("why"),
    StopIteration(5),
    ValueError((1, 2), {"a": (3,)}, {4, 5}, b"\x00", UUID(int=1), datetime(2024, 1, 1, tzinfo=UTC)),
    ExceptionGroup("two", [ValueError(1), ExceptionGroup("deep", [KeyError("k")])]),
    BaseExceptionGroup("base", [KeyboardInterrupt()]),
]


@pytest.mark.parametrize("error", SAME, ids=lambda error: repr(error)[:40])
def test_an_exception_comes_back_as_itself(error: BaseException) -> None:
    found = decode_failure(encode_failure(error))

    assert type(found) is type(error)
    assert str(found) == str(error)
    assert repr(found) == repr(error)
    if not isinstance(error, BaseExceptionGroup):
        assert found.args == error.args
        assert found.__dict__ == error.__dict__


def test_what_json_cannot_hold_is_shown_as_text_in_args_and_left_out_of_fields() -> None:
    error = ValueError("x", object)
    error.lock = print  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    found = decode_failure(encode_failure(error))

    assert found.args == ("x", "<class 'object'>")
    assert not hasattr(found, "lock")


PERDURE_ERRORS: list[PerdureError] = [
    errors.DefinitionError("bad", hint="do"),
    errors.NotSerialisable("a.b", "no"),
    errors.PayloadTooLarge("a.b", size=2, limit=1),
    errors.NotDecodable("a.b", "no"),
    errors.StepTimedOut("slow", hint="h"),
    errors.HeartbeatTimedOut("silent"),
    errors.ForeignError("shop.Gone", "away"),
    errors.RunNotFound("no run", run_id="17", hint="look"),
    errors.RunParked("parked", run_id="17"),
    errors.LeaseLost("lost"),
]


@pytest.mark.parametrize("error", PERDURE_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_ours_comes_back_with_its_fields(error: PerdureError) -> None:
    found = decode_failure(encode_failure(error))

    assert type(found) is type(error)
    assert found.__dict__ == error.__dict__
    assert str(found) == str(error)


def test_causes_contexts_and_notes_come_back() -> None:
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904
        except ValueError as second:
            second.add_note("look here")
            raise RuntimeError("third") from second
    except RuntimeError as third:
        error = third

    found = decode_failure(encode_failure(error))

    assert repr(found.__cause__) == "ValueError('second')"
    assert found.__cause__ is not None
    assert repr(found.__cause__.__context__) == "KeyError('first')"
    assert found.__cause__.__notes__[0] == "look here"


def test_a_suppressed_context_stays_suppressed() -> None:
    try:
        try:
            raise KeyError("noise")
        except KeyError:
            raise ValueError("told") from None
    except ValueError as told:
        error = told

    found = decode_failure(encode_failure(error))

    assert "noise" not in "".join(traceback.format_exception(found))


def test_printing_shows_where_it_happened_in_the_first_process() -> None:
    error = _raised(ValueError("x"))

    found = decode_failure(encode_failure(decode_failure(encode_failure(error))))

    text = "".join(traceback.format_exception(found))
    assert text.count("Traceback in the process where it was raised:") == 1
    assert "in _raised" in text


def test_an_exception_that_causes_itself_is_written_once() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first

    found = decode_failure(encode_failure(first))

    assert repr(found.__cause__) == "ValueError('second')"
    assert found.__cause__ is not None
    assert found.__cause__.__cause__ is None


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


def _long_chain() -> BaseException:
    error = ValueError("0")
    for number in range(500):
        after = ValueError(str(number))
        after.__cause__ = error
        error = after
    return error


def _deep() -> BaseException:
    def dive(levels: int) -> None:
        if not levels:
            raise ValueError("at the ground")
        dive(levels - 1)

    try:
        dive(700)
    except ValueError as error:
        return error
    raise AssertionError


HUGE: list[BaseException] = [
    ValueError("\x00" * 10_000_000),
    ValueError(*["x" * 16_000] * 100),
    ExceptionGroup("wide", [_raised(ValueError("\x01" * 50_000)) for _ in range(1_000)]),
    ExceptionGroup("g", [ExceptionGroup("g", [ValueError("é" * 30_000)] * 30)] * 30),
    _long_chain(),
    _deep(),
    Nasty(),
    ValueError(Nasty()),
    ValueError("\ud800"),
    type("Long" * 100_000, (Exception,), {})("x"),
]


@pytest.mark.parametrize("error", HUGE, ids=[str(n) for n in range(len(HUGE))])
def test_any_exception_is_written_within_the_limit(error: BaseException) -> None:
    data = encode_failure(error)

    assert len(data) <= MAX_FAILURE
    assert isinstance(decode_failure(data), BaseException)
    assert describe_failure(data)
    assert failure_lines(data)


def test_a_traceback_keeps_its_ends() -> None:
    lines = failure_lines(encode_failure(_deep()))

    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: at the ground"
    assert 'raise ValueError("at the ground")' in lines[-2]


def test_a_type_that_is_not_loaded_is_foreign_and_is_not_imported() -> None:
    data = b'{"type":"this:Zen","message":"not loaded","args":["a"],"fields":{"sku":"p"}}'

    found = decode_failure(data)

    assert type(found) is ForeignError
    assert (found.type_name, found.message, found.__dict__["sku"]) == ("this.Zen", "not loaded", "p")
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "builtins:print",
        "builtins:int",
        "os:system",
        "perdure.errors:PerdureError.__init__",
        "nowhere",
        "",
        ":",
        "builtins:",
        "sys:modules.os.error",
    ],
)
def test_a_name_that_is_no_exception_is_foreign(name: str) -> None:
    data = json.dumps({"type": name, "message": "m", "args": ["echo no"]}).encode()

    assert type(decode_failure(data)) is ForeignError


LAZY = """
import sys, types
from perdure.codec.failures import decode_failure
lazy = types.ModuleType("lazy")
lazy.__getattr__ = lambda name: print("ran", name)
sys.modules["lazy"] = lazy
class Evil(Exception):
    def __new__(cls, *args): print("new ran"); return super().__new__(cls, *args)
    def __init__(self, *args): print("init ran")
    def __setattr__(self, name, value): print("setattr ran")
for kind in ("lazy:Error", "__main__:Evil"):
    decode_failure(b'{"type":"%s","message":"m","args":["m"],"fields":{"a":1}}' % kind.encode())
"""


def test_reading_a_failure_runs_no_code_that_it_names() -> None:
    root = Path(errors.__file__).parents[1]

    done = subprocess.run(
        [sys.executable, "-c", LAZY],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(root)},
    )

    assert done.stdout == ""


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"type":1}', b'{"type":"builtins:ValueError","fields":{"a":{"$nope":1}}}']
)
def test_a_damaged_failure_is_still_an_exception(data: bytes) -> None:
    assert isinstance(decode_failure(data), Exception)
    assert describe_failure(data)
    assert failure_lines(data)


def test_a_group_that_lost_its_members_is_foreign() -> None:
    data = b'{"type":"builtins:ExceptionGroup","message":"m","args":["m"],"members":[]}'

    assert type(decode_failure(data)) is ForeignError


def test_a_failure_is_described_in_one_line() -> None:
    assert describe_failure(encode_failure(OutOfStock("pears", left=1))) == "OutOfStock: no more pears"
    assert describe_failure(encode_failure(ValueError())) == "ValueError"
    assert describe_failure(encode_failure(ValueError("a\nb"))) == "ValueError: a"


def test_the_lines_of_a_failure_show_causes_notes_and_members() -> None:
    error = ExceptionGroup("several", [KeyError("k")])
    error.__cause__ = ValueError("why")
    error.add_note("a note")

    lines = failure_lines(encode_failure(error))

    assert lines == [
        "ValueError: why",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "ExceptionGroup: several (1 sub-exception)",
        "a note",
        "  ── 1 of 1 ──",
        "  KeyError: 'k'",
    ]


TEXTS = st.text()
ARGS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
    | st.binary(max_size=50)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.datetimes()
    | st.dates()
    | st.timedeltas(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("ab$", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.lists(ARGS, max_size=3), st.dictionaries(st.sampled_from(["sku", "left", "why"]), ARGS))
def test_any_args_and_fields_come_back_equal(args: list[object], fields: dict[str, object]) -> None:
    error = Rejected(*args)
    error.__dict__.update(fields)

    found = decode_failure(encode_failure(error))

    assert type(found) is Rejected
    assert found.args == tuple(args)
    assert found.__dict__ == fields


@given(TEXTS, TEXTS)
def test_any_text_is_written(message: str, note: str) -> None:
    error = ValueError(message)
    error.add_note(note)

    data = encode_failure(error)

    assert len(data) <= MAX_FAILURE
    assert isinstance(decode_failure(data), ValueError)
