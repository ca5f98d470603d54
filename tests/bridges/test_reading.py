"""What an intake makes of a message, and a relay of an event, with no broker: both are CloudEvents 1.0."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from perdure import NotDecodable, Stream
from perdure.blocks.cloudevents import message_headers
from perdure.bridges import kafka, nats
from perdure.bridges.intake import Intake
from perdure.bridges.message import Message
from perdure.core.events import EventRow
from tests.streams.events import Paid, Placed

Orders = Stream[Placed | Paid]
NAMES = {"specversion": "1.0", "id": "grün 1", "source": "till", "type": "order.placed"}
BODY = b'{"order": "a", "amount": 2}'
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HOP = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


@pytest.fixture(params=["nats", "kafka"])
def intake(request: pytest.FixtureRequest, orders: Orders) -> Intake[Placed | Paid]:
    if request.param == "nats":
        return nats.intake(orders, "nats://nowhere", source="SHOP", consumer="perdure")
    return kafka.intake(orders, {"bootstrap.servers": "nowhere"}, topic="shop", group="perdure")


def message(data: bytes, **headers: str) -> Message:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Message("shop", 0, 7, 1_000, "", named, data, "")


def structured(**changes: object) -> Message:
    body = {**NAMES, "data": json.loads(BODY), **changes}
    return message(json.dumps(body).encode(), Content_Type="application/cloudevents+json")


def test_attributes_that_are_null_are_not_there(intake: Intake[Placed | Paid]) -> None:
    event = intake.read(structured(time=None, dataschema=None, subject=None), 5_000)

    assert event is not None
    assert (event.id, event.source, event.type, event.version) == ("grün 1", "till", "order.placed", 1)
    assert event.time_ms == 5_000


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"id": None}, "no id"),
        ({"source": ""}, "no source"),
        ({"specversion": "0.3"}, "its specversion is '0.3'"),
        ({"time": "noon"}, "its time is 'noon'"),
        ({"data": 7}, "amount|order|expected"),
    ],
    ids=["no id", "no source", "another version", "no time", "other data"],
)
def test_what_is_no_cloudevent_that_can_be_read_says_why(
    intake: Intake[Placed | Paid], changes: dict[str, object], why: str
) -> None:
    with pytest.raises(NotDecodable, match=why):
        intake.read(structured(**changes), 5_000)


@pytest.mark.parametrize(("bridge", "prefix", "is_ascii"), [("nats", "ce-", True), ("kafka", "ce_", False)])
def test_what_a_relay_sends_is_taken_in_as_the_same_event(
    orders: Orders, bridge: str, prefix: str, is_ascii: bool
) -> None:
    intake: Intake[Placed | Paid]
    if bridge == "nats":
        intake = nats.intake(orders, "nats://nowhere", source="SHOP", consumer="perdure")
    else:
        intake = kafka.intake(orders, {"bootstrap.servers": "nowhere"}, topic="shop", group="perdure")
    happened = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)
    time_ms = round(happened.timestamp() * 1000)
    row = EventRow(9, "%41 größe", "till", "order.placed", 1, "a", time_ms, time_ms, f"{TRACE} {STATE}", BODY)

    headers = message_headers(row, "orders", prefix, is_ascii=is_ascii)
    event = intake.read(Message("shop", 0, 7, 1_000, "", headers, BODY, ""), 5_000)

    assert event is not None
    assert (event.id, event.source, event.type, event.key, event.time_ms, event.trace) == (
        row.id, row.source, row.type, row.key, row.time_ms, row.trace,
    )  # fmt: skip
    assert (headers["traceparent"], headers["tracestate"]) == (TRACE, STATE)
    assert all(value.isascii() for value in headers.values()) is is_ascii


@pytest.mark.parametrize(
    ("attributes", "headers", "trace"),
    [
        ({"traceparent": TRACE, "tracestate": STATE}, {}, f"{TRACE} {STATE}"),
        ({"traceparent": TRACE}, {"traceparent": HOP, "tracestate": STATE}, TRACE),
        ({}, {"TraceParent": HOP, "tracestate": STATE}, f"{HOP} {STATE}"),
        ({}, {"traceparent": HOP}, HOP),
        ({"traceparent": "mine", "tracestate": STATE}, {}, ""),
        ({}, {"tracestate": STATE}, ""),
        ({"traceparent": TRACE, "tracestate": "a=1," * 200}, {}, TRACE),
    ],
    ids=["the event's", "both", "the message's", "no state", "no trace", "a state alone", "a long state"],
)
def test_an_event_keeps_the_trace_that_it_came_with(
    intake: Intake[Placed | Paid], attributes: dict[str, str], headers: dict[str, str], trace: str
) -> None:
    sent = structured(**attributes)

    event = intake.read(replace(sent, headers={**sent.headers, **headers}), 5_000)

    assert event is not None
    assert event.trace == trace


def test_a_message_that_is_no_cloudevent_keeps_its_trace() -> None:
    plain = Stream("plain-orders", Placed)
    intake = nats.intake(plain, "nats://nowhere", source="SHOP", consumer="perdure")

    event = intake.read(message(BODY, traceparent=HOP, tracestate=STATE), 5_000)

    assert event is not None
    assert event.trace == f"{HOP} {STATE}"
