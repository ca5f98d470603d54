"""The checkout example, crashed wherever it can be: the customer pays once, or not at all."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from examples.checkout import workflow as program
from examples.checkout.books import Books
from examples.checkout.workflow import Order, Receipt, approval, checkout
from perdure import RunFailed, WorkflowCall
from perdure.testing import Cancel, Event, Send, Wait

LARGE = 200_000
SMALL = 4_200

CrashTest = Generator[WorkflowCall[Receipt] | tuple[WorkflowCall[Receipt] | Event, ...], Any, None]


def order(*, cents: int, quantity: int = 1) -> Order:
    return Order("17", "lamp", quantity, cents)


def open_books(monkeypatch: pytest.MonkeyPatch, *, lamps: int = 5) -> Books:
    """The outside world, in this process and with nothing in it yet."""
    books = Books({"lamp": lamps})

    def post(path: str, body: dict[str, Any], *, key: str) -> dict[str, Any]:
        status, answer = books.answer(path, body, key)
        if status >= 400:
            raise PermissionError(answer["error"])
        return answer

    monkeypatch.setattr(program, "post", post)
    return books


def assert_delivered(books: Books) -> None:
    assert [(charge.order, charge.refunded) for charge in books.charges] == [("17", False)]
    assert [reservation.released for reservation in books.reservations] == [False]
    assert books.stock == {"lamp": 4}
    assert books.dashboard == {"17": "delivered"}
    assert [message.text for message in books.messages] == ["Your order is on its way."]


def assert_undone(books: Books, *, lamps: int = 5) -> None:
    assert all(charge.refunded for charge in books.charges)
    assert all(reservation.released for reservation in books.reservations)
    assert books.stock == {"lamp": lamps}
    assert books.dashboard == {"17": "failed"}
    assert len(books.messages) == 1


@pytest.mark.crash_everywhere
def test_a_small_order_is_paid_once_and_delivered(monkeypatch: pytest.MonkeyPatch) -> CrashTest:
    books = open_books(monkeypatch)

    receipt = yield checkout(order(cents=SMALL))

    assert receipt == Receipt("17", "receipt-1", "nobody: the order is small")
    assert_delivered(books)


@pytest.mark.crash_everywhere
def test_a_large_order_is_delivered_once_it_is_approved(monkeypatch: pytest.MonkeyPatch) -> CrashTest:
    books = open_books(monkeypatch)

    receipt = yield checkout(order(cents=LARGE)), Send(approval, "ann")

    assert receipt.approved_by == "ann"
    assert_delivered(books)


@pytest.mark.crash_everywhere
def test_an_order_that_nobody_approves_is_undone(monkeypatch: pytest.MonkeyPatch) -> CrashTest:
    books = open_books(monkeypatch)

    with pytest.raises(RunFailed):
        yield checkout(order(cents=LARGE)), Wait(86_400 + 1), Send(approval, "too late")

    assert_undone(books)


@pytest.mark.crash_everywhere
def test_an_order_that_is_out_of_stock_is_undone(monkeypatch: pytest.MonkeyPatch) -> CrashTest:
    books = open_books(monkeypatch, lamps=0)

    with pytest.raises(RunFailed):
        yield checkout(order(cents=SMALL))

    assert_undone(books, lamps=0)


@pytest.mark.crash_everywhere
def test_an_order_that_is_cancelled_while_it_waits_is_undone(monkeypatch: pytest.MonkeyPatch) -> CrashTest:
    books = open_books(monkeypatch)

    with pytest.raises(RunFailed):
        yield checkout(order(cents=LARGE)), Cancel("regretted")

    assert_undone(books)
