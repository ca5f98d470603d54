"""The checkout example's outside world: the books, the service and its faults, the client, the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from examples.checkout.audit import audit
from examples.checkout.books import Books
from examples.checkout.client import (
    OutOfStock,
    Refused,
    ServiceUnavailable,
    post,
    queue_faults,
    read_books,
    wait_for_request,
)
from examples.checkout.service import Service

CHARGE = {"order": "o1", "cents": 4200}


def reserve(quantity: int, order: str = "o1") -> dict[str, Any]:
    return {"order": order, "item": "lamp", "quantity": quantity}


def test_the_same_key_gets_the_same_answer_and_charges_once() -> None:
    books = Books(stock={})

    answers = [books.answer("/charges", CHARGE, "k") for _ in range(3)]

    assert answers == [(201, {"receipt": "receipt-1"})] * 3
    assert len(books.charges) == 1


def test_a_second_key_charges_a_second_time() -> None:
    books = Books(stock={})

    books.answer("/charges", CHARGE, "one")
    books.answer("/charges", CHARGE, "other")

    assert [charge.receipt for charge in books.charges] == ["receipt-1", "receipt-2"]


def test_a_refund_gives_back_all_that_was_paid_and_stops_charges_that_come_later() -> None:
    books = Books(stock={})
    books.answer("/charges", CHARGE, "a")

    refunds = [books.answer("/refunds", {"order": "o1"}, key) for key in ("b", "c")]

    assert [answer["cents"] for _, answer in refunds] == [4200, 0]
    assert books.answer("/charges", CHARGE, "d")[0] == 410


def test_a_refund_of_what_was_never_charged_does_no_harm() -> None:
    books = Books(stock={})

    status, answer = books.answer("/refunds", {"order": "o1"}, "a")

    assert (status, answer) == (200, {"cents": 0})


def test_more_than_there_is_cannot_be_reserved_and_is_not_remembered() -> None:
    books = Books(stock={"lamp": 2})

    refused = books.answer("/reservations", reserve(3), "a")
    books.stock["lamp"] = 3
    granted = books.answer("/reservations", reserve(3), "a")

    assert (refused[0], granted[0]) == (409, 201)
    assert books.stock == {"lamp": 0}


def test_a_release_puts_back_what_was_taken_once() -> None:
    books = Books(stock={"lamp": 2})
    books.answer("/reservations", reserve(2), "a")

    books.answer("/releases", {"order": "o1"}, "b")
    books.answer("/releases", {"order": "o1"}, "c")

    assert books.stock == {"lamp": 2}
    assert books.answer("/reservations", reserve(1), "d")[0] == 410


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with Service(Books(stock={"lamp": 1})) as service:
        thread = Thread(target=service.serve_forever)
        thread.start()
        monkeypatch.setenv("SHOP_URL", service.url)
        yield service
        service.closing.set()
        service.shutdown()
        thread.join()


def outcomes(service: Service) -> list[str]:
    return [request["outcome"] for request in read_books(service.url)["requests"]]


def test_the_service_answers_the_client(service: Service) -> None:
    answer = post("/charges", CHARGE, key="a")

    assert answer == {"receipt": "receipt-1"}
    assert outcomes(service) == ["201"]


def test_a_service_that_fails_has_done_nothing(service: Service) -> None:
    queue_faults(service.url, "/charges", "fail", times=2)

    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match="503"):
            post("/charges", CHARGE, key="a")
    post("/charges", CHARGE, key="a")

    assert outcomes(service) == ["503", "503", "201"]
    assert len(service.books.charges) == 1


def test_a_service_that_hangs_has_done_nothing(service: Service) -> None:
    queue_faults(service.url, "/charges", "hang")

    with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.1 s"):
        post("/charges", CHARGE, key="a", patience_seconds=0.1)

    assert service.books.charges == []


def test_a_service_that_answers_late_has_done_the_work_and_says_so_the_second_time(service: Service) -> None:
    queue_faults(service.url, "/charges", "late")
    with pytest.raises(ServiceUnavailable):
        post("/charges", CHARGE, key="a", patience_seconds=0.1)

    answer = post("/charges", CHARGE, key="a")

    assert answer == {"receipt": "receipt-1"}
    assert outcomes(service) == ["201, answered late", "201 as before"]
    assert len(service.books.charges) == 1


def test_an_empty_shelf_is_an_error_that_is_not_tried_again(service: Service) -> None:
    with pytest.raises(OutOfStock, match="2 of 'lamp' are wanted and 1 are left"):
        post("/reservations", reserve(2), key="a")


def test_what_the_service_will_never_do_is_refused(service: Service) -> None:
    with pytest.raises(Refused, match="404"):
        post("/nowhere", {}, key="a")


def test_a_service_that_is_not_there_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with Service(Books(stock={})) as closed:
        monkeypatch.setenv("SHOP_URL", closed.url)

    with pytest.raises(ServiceUnavailable):
        post("/charges", CHARGE, key="a")


def test_one_can_wait_for_a_request_to_arrive(service: Service) -> None:
    waiter = Thread(target=wait_for_request, args=(service.url, "/charges", "o1"))
    waiter.start()

    post("/charges", CHARGE, key="a")

    waiter.join(timeout=30)
    assert not waiter.is_alive()


STOCK = {"lamp": 2}
DELIVERED = {"o1": True, "o2": False}


def good_books() -> Books:
    books = Books(stock=dict(STOCK))
    for order in DELIVERED:
        books.answer("/charges", {"order": order, "cents": 1}, f"charge {order}")
        books.answer("/reservations", reserve(1, order), f"reserve {order}")
    books.answer("/releases", {"order": "o2"}, "release")
    books.answer("/refunds", {"order": "o2"}, "refund")
    books.answer("/messages", {"order": "o1", "text": "It is on its way."}, "tell o1")
    books.answer("/messages", {"order": "o2", "text": "We are sorry."}, "tell o2")
    books.answer("/dashboard", {"order": "o1", "status": "delivered"}, "show o1")
    books.answer("/dashboard", {"order": "o2", "status": "failed"}, "show o2")
    return books


def failed_claims(books: Books) -> list[str]:
    claims = audit(books.to_json(), delivered=DELIVERED, stock=STOCK)
    return [claim.text for claim in claims if not claim.holds]


def test_the_audit_finds_nothing_in_good_books() -> None:
    assert failed_claims(good_books()) == []


FRAUDS: dict[str, tuple[Callable[[Books], object], str]] = {
    "a second charge": (
        lambda books: books.answer("/charges", {"order": "o1", "cents": 1}, "other"),
        "no order was charged twice",
    ),
    "a refund that did not come": (
        lambda books: setattr(books.charges[1], "refunded", False),
        "money was kept for the delivered orders, and for no other",
    ),
    "goods that were not put back": (
        lambda books: setattr(books.reservations[1], "released", False),
        "goods are set aside for the delivered orders, and for no other",
    ),
    "goods that vanished": (
        lambda books: books.stock.update(lamp=0),
        "goods are set aside for the delivered orders, and for no other",
    ),
    "a customer who was told twice": (
        lambda books: books.answer("/messages", {"order": "o1", "text": "on its way"}, "other"),
        "every customer was told once, and told the truth",
    ),
    "a customer who was told a lie": (
        lambda books: setattr(books.messages[1], "text", "It is on its way."),
        "every customer was told once, and told the truth",
    ),
    "a dashboard that is behind": (
        lambda books: books.dashboard.pop("o2"),
        "the dashboard shows how each order ended",
    ),
}


@pytest.mark.parametrize("fraud", FRAUDS)
def test_the_audit_finds_what_is_wrong(fraud: str) -> None:
    commit, claim = FRAUDS[fraud]
    books = good_books()

    commit(books)

    assert claim in failed_claims(books)
