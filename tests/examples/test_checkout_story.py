"""The checkout example's scenes, one by one: a real service, real processes, real kills."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from examples.checkout.audit import audit
from examples.checkout.client import queue_faults, read_books
from examples.checkout.scenes import (
    ROOT,
    STOCK,
    Ending,
    Shop,
    bring_to_end,
    open_shop,
    play_approved,
    play_flaky,
    play_happy,
    play_killed,
    play_late,
    play_not_approved,
    play_out_of_stock,
)
from examples.checkout.workflow import Order


@pytest.fixture(params=["sqlite", "postgres", "temporal"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the runs are kept: the story is the same everywhere."""
    if request.param != "sqlite":
        found: str = request.getfixturevalue(f"{request.param}_url")
        return found
    return f"sqlite:///{tmp_path / 'checkout.db'}"


@pytest.fixture
async def shop(store: str) -> AsyncIterator[Shop]:
    async with open_shop(store) as shop:
        yield shop


async def books_of(shop: Shop) -> dict[str, Any]:
    return await asyncio.to_thread(read_books, shop.url)


def outcomes(books: dict[str, Any], path: str) -> list[str]:
    return [request["outcome"] for request in books["requests"] if request["path"] == path]


def failed_claims(books: dict[str, Any], *endings: Ending) -> list[str]:
    claims = audit(books, delivered={each.order: each.delivered for each in endings}, stock=STOCK)
    return [f"{claim.text}: {claim.found}" for claim in claims if not claim.holds]


async def test_an_order_on_a_good_day_is_paid_and_delivered(shop: Shop) -> None:
    ending = await play_happy(shop)

    books = await books_of(shop)
    assert (ending.delivered, ending.status) == (True, "delivered")
    assert [request["path"] for request in books["requests"]] == [
        "/charges",
        "/reservations",
        "/dashboard",
        "/messages",
    ]
    assert failed_claims(books, ending) == []


async def test_a_flaky_payment_service_is_asked_again_until_it_answers(shop: Shop) -> None:
    ending = await play_flaky(shop)

    books = await books_of(shop)
    assert ending.delivered
    assert outcomes(books, "/charges") == ["503", "503", "no answer", "201"]
    assert failed_claims(books, ending) == []


async def test_a_charge_whose_answer_came_too_late_is_made_once(shop: Shop) -> None:
    ending = await play_late(shop)

    books = await books_of(shop)
    assert ending.delivered
    assert outcomes(books, "/charges") == ["201, answered late", "201 as before"]
    assert failed_claims(books, ending) == []


async def test_an_order_that_is_out_of_stock_is_refunded(shop: Shop) -> None:
    ending = await play_out_of_stock(shop)

    books = await books_of(shop)
    assert not ending.delivered
    assert ending.said == "1 of 'chandelier' are wanted and 0 are left"
    assert outcomes(books, "/reservations") == ["409"]
    assert outcomes(books, "/refunds") == ["503", "200"]
    assert failed_claims(books, ending) == []


async def test_an_order_that_nobody_approves_is_released_and_then_refunded(shop: Shop) -> None:
    ending = await play_not_approved(shop)

    books = await books_of(shop)
    undone = [request["path"] for request in books["requests"]][2:]
    assert not ending.delivered
    assert ending.said == "nobody approved the order within 1 s"
    assert undone == ["/releases", "/refunds", "/messages", "/dashboard"]
    assert failed_claims(books, ending) == []


async def test_an_order_that_is_approved_in_time_is_delivered(shop: Shop) -> None:
    ending = await play_approved(shop)

    assert ending.delivered
    assert ending.said == "receipt-1, approved by ann"
    assert failed_claims(await books_of(shop), ending) == []


async def test_an_order_whose_worker_was_killed_goes_on_and_is_charged_once(shop: Shop) -> None:
    ending = await play_killed(shop)

    books = await books_of(shop)
    assert ending.delivered
    assert outcomes(books, "/charges") == ["201, answered late", "201 as before"]
    assert failed_claims(books, ending) == []


async def test_an_order_whose_payment_service_stays_down_pays_nothing(shop: Shop) -> None:
    await asyncio.to_thread(queue_faults, shop.url, "/charges", "fail", times=5)

    ending = await bring_to_end(shop, Order("order-8", "lamp", 1, 4_200))

    books = await books_of(shop)
    assert not ending.delivered
    assert outcomes(books, "/charges") == ["503"] * 5
    assert outcomes(books, "/refunds") == ["200"]
    assert failed_claims(books, ending) == []


async def test_an_order_that_has_ended_is_not_charged_when_it_is_started_again(shop: Shop) -> None:
    first = await play_happy(shop)
    requests = (await books_of(shop))["requests"]

    second = await play_happy(shop)

    assert second == first
    assert (await books_of(shop))["requests"] == requests


@pytest.mark.slow
def test_the_whole_story_ends_with_books_that_hold(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "examples.checkout", "--store", str(tmp_path / "checkout.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("  holds  ") == 5
