"""Holds the service's own books against what the engine told. Knows neither Perdure nor the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that must hold, and what was found."""

    text: str
    holds: bool
    found: str


def audit(books: dict[str, Any], *, delivered: dict[str, bool], stock: dict[str, int]) -> list[Claim]:
    """Check the books. `delivered` says how each order ended, `stock` what there was at first."""
    good = {order for order, ended_well in delivered.items() if ended_well}
    charged = Counter(charge["order"] for charge in books["charges"])
    kept = Counter(charge["order"] for charge in books["charges"] if not charge["refunded"])
    held = Counter(each["order"] for each in books["reservations"] if not each["released"])
    told = Counter(message["order"] for message in books["messages"])
    keys = {(each["order"], each["key"]) for each in books["requests"] if each["path"] == "/charges"}
    tries = sum(each["path"] == "/charges" for each in books["requests"])
    return [
        Claim(
            "no order was charged twice",
            all(times == 1 for times in charged.values()),
            f"{charged.total()} charges of {len(charged)} orders, by {tries} requests with {len(keys)} keys",
        ),
        Claim(
            "money was kept for the delivered orders, and for no other",
            kept == Counter(good),
            f"kept for {_names(kept)}; given back for {_names(charged.keys() - kept.keys())}",
        ),
        Claim(
            "goods are set aside for the delivered orders, and for no other",
            held == Counter(good) and _total_stock(books) == stock,
            f"set aside for {_names(held)}; on the shelf or set aside: {_total_stock(books)}",
        ),
        Claim(
            "every customer was told once, and told the truth",
            told == Counter(delivered.keys())
            and all(_is_true(message, delivered) for message in books["messages"]),
            f"{told.total()} messages to {len(told)} customers",
        ),
        Claim(
            "the dashboard shows how each order ended",
            books["dashboard"] == {order: "delivered" if order in good else "failed" for order in delivered},
            f"{len(books['dashboard'])} orders on it",
        ),
    ]


def _is_true(message: dict[str, Any], delivered: dict[str, bool]) -> bool:
    return ("on its way" in message["text"]) == delivered.get(message["order"])


def _total_stock(books: dict[str, Any]) -> dict[str, int]:
    """What is on the shelf, and what was taken from it and not put back."""
    total: Counter[str] = Counter(books["stock"])
    for each in books["reservations"]:
        if not each["released"]:
            total[each["item"]] += each["quantity"]
    return dict(total)


def _names(orders: Iterable[str]) -> str:
    return ", ".join(sorted(orders)) or "none"
