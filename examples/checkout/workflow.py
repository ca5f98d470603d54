"""The order's way: charge, reserve, wait for an approval, tell the customer, update the dashboard.

Each undo is registered *before* its effect is tried: a charge whose answer was
lost may have been made. So an undo asks by order, not by receipt, and does no
harm when there is nothing to undo. When the run fails or is cancelled, undos
run in reverse, as steps.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from perdure import NonRetryable, Retry, Signal, State, compensate, step, step_info, workflow

from .client import post

approval = Signal[str]("approval")
"""Who approves an order: `await run.send(approval, "ann")`."""

status = State[str]("status")
"""Where the order stands. Anyone may read it, also when no worker runs."""

APPROVAL_FROM_CENTS = 100_000
"""Smaller orders need nobody's approval."""

outside = Retry(attempts=5, delay=0.2)


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    item: str
    quantity: int
    cents: int
    approve_within_seconds: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Receipt:
    order: str
    payment: str
    approved_by: str


class NotApproved(NonRetryable):
    """Nobody approved the order in time."""


@step(retry=outside, timeout=10)
def charge(order: Order) -> str:
    body = {"order": order.id, "cents": order.cents}
    return post("/charges", body, key=step_info().idempotency_key)["receipt"]


@step(retry=outside, timeout=10)
def refund(order: Order) -> int:
    """Give back what was paid, if anything was; returns the cents."""
    return post("/refunds", {"order": order.id}, key=step_info().idempotency_key)["cents"]


@step(retry=outside, timeout=10)
def reserve(order: Order) -> None:
    body = {"order": order.id, "item": order.item, "quantity": order.quantity}
    post("/reservations", body, key=step_info().idempotency_key)


@step(retry=outside, timeout=10)
def release(order: Order) -> None:
    """Put back what was reserved, if anything was."""
    post("/releases", {"order": order.id}, key=step_info().idempotency_key)


@step(retry=outside, timeout=10)
def notify(order: Order, text: str) -> None:
    post("/messages", {"order": order.id, "text": text}, key=step_info().idempotency_key)


@step(retry=outside, timeout=10)
def update_dashboard(order: Order, text: str) -> None:
    post("/dashboard", {"order": order.id, "status": text}, key=step_info().idempotency_key)


@workflow
async def checkout(order: Order) -> Receipt:
    """Bring an order to its end: delivered and paid, or neither."""
    # Registered first, so done last, when all else is undone.
    compensate(update_dashboard(order, "failed"))
    compensate(notify(order, "We are sorry: your order is cancelled. You pay nothing."))

    status.set("charging")
    compensate(refund(order))
    payment = await charge(order)

    status.set("reserving")
    compensate(release(order))
    await reserve(order)

    approved_by = await wait_for_approval(order)
    status.set("announcing")
    await update_dashboard(order, "delivered")
    await notify(order, "Your order is on its way.")
    status.set("delivered")
    return Receipt(order.id, payment, approved_by)


async def wait_for_approval(order: Order) -> str:
    """Who approved it. Raises NotApproved when nobody does in time; that may be days."""
    if order.cents < APPROVAL_FROM_CENTS:
        return "nobody: the order is small"
    status.set("waiting for approval")
    try:
        async with asyncio.timeout(order.approve_within_seconds):
            who = await approval.receive()
    except TimeoutError:
        raise NotApproved(f"nobody approved the order within {order.approve_within_seconds:g} s") from None
    status.set(f"approved by {who}")
    return who
