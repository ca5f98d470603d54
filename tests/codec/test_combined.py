"""A failed step is caught as StepFailed and as the last error, before a journey through JSON and after it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar

import pytest

from perdure import errors
from perdure.codec.failures import decode_failure, encode_failure, step_failed
from perdure.errors import Attempt, ForeignError, StepFailed


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


class HasStep(Exception):
    def __init__(self) -> None:
        super().__init__("mine")
        self.step = "my own step"


class Registry(Exception):
    known: ClassVar[list[str]] = []

    def __init_subclass__(cls) -> None:
        Registry.known.append(cls.__name__)


ATTEMPTS = (Attempt(1, "OutOfStock: no", 10), Attempt(2, "OutOfStock: no", 20), Attempt(3, "x", 30))


def _fail(last: BaseException) -> Any:
    return step_failed(last, step="charge", attempts=ATTEMPTS, run_id="order-17")


def test_a_failed_step_is_caught_by_both_names() -> None:
    last = OutOfStock("pears", left=3)

    error = _fail(last)

    assert isinstance(error, StepFailed)
    assert isinstance(error, OutOfStock)
    assert type(error).__name__ == "OutOfStock"
    assert (str(error), error.args, error.sku, error.left) == (str(last), last.args, "pears", 3)
    assert (error.step, error.attempts, error.__cause__) == ("charge", ATTEMPTS, last)


def test_a_failed_step_says_so_in_a_note() -> None:
    error = _fail(OutOfStock("pears", left=3))

    said = "Step 'charge' of run 'order-17' failed in all 3 attempts; the last: OutOfStock: no more pears."
    assert error.what == said
    assert error.__notes__ == [said]


def test_where_it_failed_is_told_once() -> None:
    last = decode_failure(b'{"type":"builtins:ValueError","message":"x","traceback":"  line 7, in charge"}')

    error = _fail(last)

    text = "".join(traceback.format_exception(decode_failure(encode_failure(error))))
    assert text.count("line 7, in charge") == 1


def test_a_single_attempt_is_not_called_all() -> None:
    error = step_failed(ValueError("x"), step="a", attempts=ATTEMPTS[:1], run_id="r")

    assert "failed in its only attempt; the last: ValueError: x." in str(error.__dict__["what"])


BOTH: list[BaseException] = [
    ValueError("x"),
    KeyError("k"),
    OSError(2, "No such file", "/a"),
    TimeoutError(),
    OutOfStock("pears", left=3),
    Declined(Decimal("1.50"), Shelf.TOP),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ExceptionGroup("two", [ValueError(1)]),
    errors.StepTimedOut("slow"),
    errors.RunFailed("failed", run_id="7"),
    ForeignError("shop.Gone", "away"),
]


@pytest.mark.parametrize("last", BOTH, ids=lambda error: repr(error)[:40])
def test_a_failed_step_comes_back_as_both_types(last: BaseException) -> None:
    error = _fail(last)

    found: Any = decode_failure(encode_failure(error))

    assert type(found) is type(error)
    assert isinstance(found, StepFailed)
    assert isinstance(found, type(last))
    assert str(found) == str(last)
    assert (found.step, found.attempts) == ("charge", ATTEMPTS)
    assert type(found.__cause__) is type(last)
    assert found.__dict__ == error.__dict__


def test_a_field_of_the_original_is_not_overwritten() -> None:
    error = _fail(HasStep())

    found: Any = decode_failure(encode_failure(error))

    assert error.step == found.step == "my own step"
    assert found.attempts == ATTEMPTS


def test_a_failed_step_of_a_failed_step_keeps_the_first_type() -> None:
    inner = _fail(OutOfStock("pears", left=3))

    error = _fail(inner)

    assert type(error) is type(inner)
    assert error.__cause__ is inner
    assert isinstance(decode_failure(encode_failure(error)).__cause__, OutOfStock)


@pytest.mark.parametrize("last", [KeyboardInterrupt(), StepFailed("x"), errors.PerdureError("x")], ids=repr)
def test_a_type_that_cannot_be_combined_gives_a_plain_failure(last: BaseException) -> None:
    error = _fail(last)

    found: Any = decode_failure(encode_failure(error))

    assert type(error) is type(found) is StepFailed
    assert str(error) == str(found)
    assert str(error).startswith("Step 'charge' of run 'order-17' failed in all 3 attempts; the last: ")
    assert found.attempts == ATTEMPTS
    assert type(found.__cause__) is type(last)


def test_a_failed_step_of_a_type_that_is_not_loaded_is_still_a_failed_step() -> None:
    data = encode_failure(_fail(OutOfStock("pears", left=3)))

    found = decode_failure(data.replace(__name__.encode(), b"gone"))

    assert type(found) is StepFailed
    assert found.attempts == ATTEMPTS
    assert type(found.__cause__) is ForeignError


def test_a_registry_of_errors_never_hears_of_the_combined_type() -> None:
    error = _fail(Registry("x"))

    assert isinstance(error, Registry)
    assert isinstance(error, StepFailed)
    assert Registry.known == []
