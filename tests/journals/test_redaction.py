"""Values are taken out of a journal by name, by path, or all; what is left still replays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from perdure import NonRetryable, Retry, Signal, Stream, Update, event, step, workflow
from perdure.journals.form import Journal, write_journal
from perdure.journals.reading import find_journal
from perdure.journals.redaction import BadPattern, redact
from perdure.testing import Harness, replay

approval = Signal[str]("approval")
move = Update[str, str]("move")


@dataclass
class Card:
    number: str
    owner: str


@dataclass
class Receipt:
    id: UUID
    at: datetime
    day: date
    total: Decimal
    took: timedelta
    raw: bytes
    cents: int
    rate: float
    paid: bool
    note: str | None
    card: Card
    lines: list[dict[str, str]]


class Declined(NonRetryable):
    def __init__(self, card: str) -> None:
        super().__init__(f"card {card} is declined")
        self.card = card


@step
async def charge(card: Card) -> Receipt:
    return Receipt(
        UUID(int=7), datetime(2027, 1, 1, 12, tzinfo=UTC), date(2027, 1, 1), Decimal("7.10"),
        timedelta(hours=1), b"secret", 710, 0.5, True, None, card, [{"item": "pears", "for": "ann@shop"}],
    )  # fmt: skip


@step(retry=Retry(attempts=1))
async def decline(card: str) -> None:
    raise Declined(card)


@workflow
async def checkout(card: Card) -> str:
    async def moved(there: str) -> str:
        return there

    move.handle(moved)
    receipt = await charge(card)
    try:
        await decline(card.number)
    except Declined:
        who = await approval.receive()
    return f"{receipt.card.owner} by {who}"


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    async with Harness() as t:
        run = await t.start(checkout(Card("4111", "ann@shop")), id="17", tags={"owner": "ann@shop"})
        await t.settle()
        await run.update(move, "ann@home")
        await run.send(approval, "bob@shop")
        await run.result()
        yield find_journal(t.store, "17")  # type: ignore[arg-type]


def written(journal: Journal) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(write_journal(journal))
    return found


def values(journal: Journal) -> dict[str, Any]:
    """The values of a journal by the name of what gave them."""
    file = written(journal)
    found: dict[str, Any] = {}
    for record in file["records"]:
        name = record["key"].split("/")[0 if record["kind"] == "update" else -1]
        found[name] = record.get("value")
    return {
        **found,
        "input": file["run"]["input"],
        "result": file["run"]["result"],
        "tags": file["run"]["tags"],
    }


async def test_all_values_are_taken_out_and_nothing_that_was_secret_is_left(journal: Journal) -> None:
    data = write_journal(redact(journal, ["*"])).decode()

    assert not [
        secret for secret in ("4111", "ann", "bob", "7.10", "710", "pears", "c2VjcmV0") if secret in data
    ]


async def test_a_marker_has_the_type_of_what_it_stands_for(journal: Journal) -> None:
    receipt = values(redact(journal, ["charge"]))["charge"]

    assert receipt == {
        "id": "00000000-0000-4000-8000-000000000000",
        "at": "2000-01-01T00:00:00Z",
        "day": "2000-01-01",
        "total": "0",
        "took": "PT0S",
        "raw": "REDACTED",
        "cents": 0,
        "rate": 0.0,
        "paid": False,
        "note": None,
        "card": {"number": "0", "owner": "REDACTED"},
        "lines": [{"item": "REDACTED", "for": "REDACTED"}],
    }


async def test_a_redacted_journal_replays_to_its_end(journal: Journal) -> None:
    replayed = replay(write_journal(redact(journal, ["*"])), checkout)

    assert replayed.status == "completed"
    assert replayed.result == "REDACTED by REDACTED"
    assert replayed.records == len(journal.records)


async def test_the_types_of_errors_and_the_digests_of_calls_stay(journal: Journal) -> None:
    redacted = redact(journal, ["*"])

    failure = values(redacted)["decline"]
    assert failure["type"].endswith(":Declined")
    assert failure["message"] == "REDACTED"
    assert [record.digest for record in redacted.records] == [record.digest for record in journal.records]


@pytest.mark.parametrize(
    ("pattern", "changed"),
    [
        ("charge", {"charge"}),
        ("c*", {"charge"}),
        ("approval", {"approval"}),
        ("move", {"move"}),
        ("input", {"input"}),
        ("result", {"result"}),
        ("tags", {"tags"}),
        ("$.card.number", {"charge", "input"}),
        ("$..number", {"charge", "input"}),
        ("charge:$.card", {"charge"}),
        ('$["card"]["owner"]', {"charge", "input"}),
        ("$.lines[*].for", {"charge"}),
        ("$.lines[0].item", {"charge"}),
        ("$.lines[1].item", set[str]()),
        ("$..nothing", set[str]()),
        ("decline:$.message", {"decline"}),
    ],
)
async def test_a_pattern_takes_out_what_it_names_and_no_more(
    journal: Journal, pattern: str, changed: set[str]
) -> None:
    before = values(journal)

    after = values(redact(journal, [pattern]))

    assert {name for name in before if before[name] != after[name]} == changed


async def test_the_file_says_what_was_taken_out_and_by_which_pattern(journal: Journal) -> None:
    file = written(redact(redact(journal, ["charge"]), ["charge", "approval"]))

    assert file["redacted"] == ["charge", "approval"]
    assert [record["kind"] for record in file["records"] if record.get("redacted")] == ["step", "signal"]


@pytest.mark.parametrize("pattern", ["", "$.card[", "$.", "charge:$.lines[x]", "$card number"])
async def test_a_pattern_that_cannot_be_read_is_refused(journal: Journal, pattern: str) -> None:
    with pytest.raises(BadPattern) as caught:
        redact(journal, [pattern])

    assert "Write a name (charge)" in caught.value.hint


async def test_the_reason_of_a_cancel_is_taken_out_too() -> None:
    @workflow
    async def sleeps() -> None:
        await asyncio.sleep(1_000)

    async with Harness() as t:
        run = await t.start(sleeps(), id="17")
        await t.settle()
        await run.cancel("ann said so")
        await t.settle()
        journal = find_journal(t.store, "17")  # type: ignore[arg-type]

    data = write_journal(redact(journal, ["*"]))

    assert b"ann" in write_journal(journal)
    assert b"ann" not in data


@event("card.paid")
@dataclass
class Paid:
    card: str
    by: str = ""
    note: str = ""


payments = Stream("redacted-payments", Paid, key=lambda paid: paid.card)


@workflow
async def waits(card: str, other: str) -> list[str]:
    return [await payer(card), await payer(other), await payer("fixed-card")]


async def payer(card: str) -> str:
    paid = await payments.next(Paid, where={"card": card})
    await note(card)
    return paid.data.by


@step
async def note(card: str) -> None: ...


async def journal_of_waits(card: str) -> Journal:
    """One of three events was there before it was waited for."""
    async with Harness() as t:
        await t.append(payments, Paid(card, "ann@shop", "secret note"))
        run = await t.start(waits(card, "other-card"), id="17")
        await t.settle()
        await t.append(payments, Paid("other-card", "eve@shop", "secret note"))
        await t.settle()
        await t.append(payments, Paid("fixed-card", "bob@shop", "secret note"))
        assert await run.result() == ["ann@shop", "eve@shop", "bob@shop"]
        return find_journal(t.store, "17")  # type: ignore[arg-type]


@pytest.mark.parametrize("card", ["first-card", "first-card " * 30])
async def test_events_that_were_waited_for_and_by_what_are_taken_out_and_it_replays(card: str) -> None:
    journal = await journal_of_waits(card)

    data = write_journal(redact(journal, ["*"]))
    replayed = replay(data, waits)

    assert not [secret for secret in (b"-card", b"@shop", b"secret") if secret in data]
    assert b"event redacted-payments/card.paid" in data
    assert replayed.result == ["REDACTED"] * 3


@pytest.mark.parametrize("pattern", ["$.card", "$..card", "event redacted-payments/*", "next_event"])
async def test_of_events_a_pattern_takes_out_what_it_names(pattern: str) -> None:
    journal = await journal_of_waits("first-card")
    found, all_of_it = written(redact(journal, [pattern])), written(journal)

    def told(file: dict[str, Any], *, by_signal: bool) -> str:
        kind = "signal" if by_signal else "step"
        records = [one for one in file["records"] if one["kind"] == kind]
        return json.dumps([one for one in records if by_signal or one["key"].endswith("/next_event")])

    assert ("first-card" in told(found, by_signal=False)) is pattern.startswith("event")
    assert ("-card" in told(found, by_signal=True)) is (pattern == "next_event")
    assert "first-card" in told(all_of_it, by_signal=False)
    assert "other-card" in told(all_of_it, by_signal=True)
    replay(write_journal(redact(journal, [pattern])), waits)
