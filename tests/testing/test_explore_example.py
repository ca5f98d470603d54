"""The checkout of the examples keeps its word in every order: delivered and paid, or neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from examples.checkout import workflow as shop
from examples.checkout.workflow import NotApproved, Order, Receipt, approval, checkout
from perdure import NonRetryable
from perdure.testing import Cancel, Explored, Send, choose, explore


class Declined(NonRetryable):
    pass


class World:
    """What the steps of the checkout change."""

    def __init__(self) -> None:
        self.paid = 0
        self.reserved = 0
        self.board = ""

    def charge(self, order: Order) -> str:
        if choose("paid", "declined") == "declined":
            raise Declined
        self.paid = order.cents
        return "receipt"

    def refund(self, order: Order) -> int:
        self.paid = 0
        return order.cents

    def reserve(self, order: Order) -> None:
        if choose("in stock", "sold out") == "sold out":
            raise Declined
        self.reserved = order.quantity

    def release(self, order: Order) -> None:
        self.reserved = 0

    def notify(self, order: Order, text: str) -> None:
        pass

    def update_dashboard(self, order: Order, text: str) -> None:
        self.board = text


def steps_of(world: World) -> dict[Any, Callable[..., Any]]:
    names = ("charge", "refund", "reserve", "release", "notify", "update_dashboard")
    return {getattr(shop, name): getattr(world, name) for name in names}


def is_delivered_and_paid_or_neither(explored: Explored[Receipt, World]) -> None:
    world = explored.world
    assert bool(world.paid) == bool(world.reserved) == (world.board == "delivered")


@pytest.mark.slow
async def test_an_order_is_delivered_and_paid_or_neither_in_every_order_of_events() -> None:
    order = Order(id="17", item="tea", quantity=1, cents=shop.APPROVAL_FROM_CENTS)

    found = await explore(
        checkout(order),
        events=[Send(approval, "ann"), Cancel()],
        setup=World,
        overrides=steps_of,
        check=is_delivered_and_paid_or_neither,
        may_raise=(Declined, NotApproved),
    )

    assert found.complete
    assert found.schedules > 100
