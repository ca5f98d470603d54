"""What the outside world knows: payments, stock, messages and a dashboard.

The law: an answer that did something is kept under the request's idempotency
key, and the same key gets the same answer and does nothing more. *Only* the key
guards against doing things twice: a caller that comes with a second key charges
the card a second time, and the books show it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Answer = tuple[int, dict[str, Any]]


@dataclass(slots=True)
class Charge:
    receipt: str
    order: str
    cents: int
    refunded: bool = False


@dataclass(slots=True)
class Reservation:
    order: str
    item: str
    quantity: int
    released: bool = False


@dataclass(slots=True)
class Message:
    order: str
    text: str


@dataclass(slots=True)
class Request:
    """One line of the log of what was asked."""

    path: str
    order: str
    key: str
    outcome: str


@dataclass(slots=True)
class Books:
    """The state of the service. Not safe for threads: the service holds a lock around it."""

    stock: dict[str, int]
    charges: list[Charge] = field(default_factory=list[Charge])
    reservations: list[Reservation] = field(default_factory=list[Reservation])
    messages: list[Message] = field(default_factory=list[Message])
    dashboard: dict[str, str] = field(default_factory=dict[str, str])
    requests: list[Request] = field(default_factory=list[Request])
    _closed: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """(what, order): it was refunded or released, so what is still under way comes too late."""
    _answers: dict[str, Answer] = field(default_factory=dict[str, Answer])

    def answer(self, path: str, body: dict[str, Any], key: str) -> Answer:
        """Do what is asked, or repeat the answer that this key had."""
        kept = self._answers.get(key)
        if kept is not None:
            return kept
        answer: Answer
        match path:
            case "/charges":
                answer = self._charge(body["order"], body["cents"])
            case "/refunds":
                answer = self._refund(body["order"])
            case "/reservations":
                answer = self._reserve(body["order"], body["item"], body["quantity"])
            case "/releases":
                answer = self._release(body["order"])
            case "/messages":
                self.messages.append(Message(body["order"], body["text"]))
                answer = 201, {}
            case "/dashboard":
                self.dashboard[body["order"]] = body["status"]
                answer = 200, {}
            case _:
                return 404, {"error": f"there is no {path}"}
        if answer[0] < 400:
            self._answers[key] = answer
        return answer

    def knows(self, key: str) -> bool:
        return key in self._answers

    def to_json(self) -> dict[str, Any]:
        return {
            "stock": self.stock,
            "charges": [asdict(charge) for charge in self.charges],
            "reservations": [asdict(reservation) for reservation in self.reservations],
            "messages": [asdict(message) for message in self.messages],
            "dashboard": self.dashboard,
            "requests": [asdict(request) for request in self.requests],
        }

    def _charge(self, order: str, cents: int) -> Answer:
        if ("charges", order) in self._closed:
            return 410, {"error": f"order {order} was refunded, so it takes no charge any more"}
        receipt = f"receipt-{len(self.charges) + 1}"
        self.charges.append(Charge(receipt, order, cents))
        return 201, {"receipt": receipt}

    def _refund(self, order: str) -> Answer:
        """Give back what was paid for an order; nothing may have been paid."""
        self._closed.add(("charges", order))
        due = [charge for charge in self.charges if charge.order == order and not charge.refunded]
        for charge in due:
            charge.refunded = True
        return 200, {"cents": sum(charge.cents for charge in due)}

    def _reserve(self, order: str, item: str, quantity: int) -> Answer:
        if ("reservations", order) in self._closed:
            return 410, {"error": f"order {order} was released, so it takes no reservation any more"}
        left = self.stock.get(item, 0)
        if left < quantity:
            return 409, {"error": f"{quantity} of {item!r} are wanted and {left} are left"}
        self.stock[item] = left - quantity
        self.reservations.append(Reservation(order, item, quantity))
        return 201, {}

    def _release(self, order: str) -> Answer:
        self._closed.add(("reservations", order))
        due = [each for each in self.reservations if each.order == order and not each.released]
        for reservation in due:
            reservation.released = True
            self.stock[reservation.item] += reservation.quantity
        return 200, {"released": len(due)}
