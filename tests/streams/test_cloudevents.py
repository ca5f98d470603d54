"""Events on the wire, as CloudEvents 1.0: what goes out in either form comes back as the same event."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import CloudEvent, Event, NotDecodable, Stream
from perdure.testing import Harness
from tests.streams.events import Paid, Placed

STRUCTURED = "application/cloudevents+json"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HAPPENED = datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=UTC)


async def appended(harness: Harness, orders: Stream[Placed | Paid]) -> list[Event[Any]]:
    """Two events, as a handler gets them: one with all that there is, one with what must be."""
    seen = list[Event[Any]]()

    @orders.on(order="stream")
    async def note(event: Event[Any]) -> None:
        seen.append(event)

    await harness.append(orders, Paid("größe 1"), id="p/1", source="till", time=HAPPENED, trace_parent=TRACE)
    await harness.append(orders, Placed("2", 3))
    await harness.settle()
    assert note.name == "note"
    return seen


async def test_the_attributes_on_the_wire_are_those_of_the_specification(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    full, bare = await appended(harness, orders)

    headers, body = CloudEvent.of(full).binary()
    plain, _ = CloudEvent.of(bare).binary()

    assert (headers, json.loads(body)) == (
        {
            "ce-specversion": "1.0",
            "ce-id": "p/1",
            "ce-source": "till",
            "ce-type": "order.paid",
            "ce-subject": "gr%C3%B6%C3%9Fe%201",
            "ce-partitionkey": "gr%C3%B6%C3%9Fe%201",
            "ce-time": "2026-02-03T04:05:06.789Z",
            "ce-dataschema": "urn:perdure:event:order.paid:2",
            "ce-traceparent": TRACE,
            "content-type": "application/json",
        },
        {"order": "größe 1"},
    )
    assert plain["ce-source"] == f"/streams/{orders.name}"
    assert "ce-traceparent" not in plain


async def test_what_is_sent_in_either_form_is_appended_as_the_same_event_and_once(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    events = await appended(harness, orders)
    sent = [CloudEvent.of(event) for event in events]
    forms = [
        *(CloudEvent.from_json(one.to_json()) for one in sent),
        *(CloudEvent.from_json(json.dumps(one.structured())) for one in sent),
        *(CloudEvent.from_http(*one.binary()) for one in sent),
        *(CloudEvent.from_http(*one.binary("ce_"), prefix="ce_") for one in sent),
        *(CloudEvent.from_http({"Content-Type": STRUCTURED}, one.to_json()) for one in sent),
    ]
    again = [await harness.append_cloudevent(orders, one) for one in forms]
    copy: Stream[Placed | Paid] = Stream(f"{orders.name}-copy", Placed | Paid, key=lambda one: one.order)
    for one in forms[:2]:
        await harness.append_cloudevent(copy, one)
    first, second = (
        harness.store.store.streams.events(name, after=0, limit=9).events for name in (orders.name, copy.name)
    )

    assert [replace(one, payload=b"") for one in forms] == [replace(one, payload=b"") for one in sent] * 5
    assert [one.is_duplicate for one in again[::2]] == [True] * 5
    assert [row[1:7] for row in second][:1] == [row[1:7] for row in first][:1]
    assert [(row.type, row.key, row.trace, row.payload) for row in second] == [
        (row.type, row.key, row.trace, row.payload) for row in first[:2]
    ]


@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_any_text_comes_through_both_forms(id: str, source: str, subject: str) -> None:
    event = CloudEvent(id=id, source=source, type="t", payload=b'{"x":1}', subject=subject)

    assert CloudEvent.from_http(*event.binary()) == event
    assert CloudEvent.from_json(event.to_json()) == event


def test_an_attribute_that_is_null_is_one_that_is_not_there() -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {}}
    optional = ["subject", "partitionkey", "time", "dataschema", "traceparent", "data_base64", "another"]

    found = CloudEvent.from_json(json.dumps({**attributes, **dict.fromkeys(optional)}))

    assert found == CloudEvent.from_json(json.dumps(attributes))


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        ({}, b"{}", "no specversion"),
        ({"content-type": STRUCTURED}, b'{"specversion":"1.0","id":null,"source":"s","type":"t"}', "no id"),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t"}, b"{}", "no source"),
        ({"ce-specversion": "0.3", "ce-id": "1", "ce-source": "s", "ce-type": "t"}, b"{}", "0.3"),
        ({"content-type": "application/cloudevents+json"}, b"{", "CloudEvent"),
        ({"content-type": "application/cloudevents+json"}, b"[]", "CloudEvent"),
        ({"content-type": "text/html"}, b"<p>", "text/html"),
        (
            {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-time": "noon"},
            b"{}",
            "noon",
        ),
    ],
)
def test_what_is_no_cloudevent_is_refused(headers: dict[str, str], body: bytes, why: str) -> None:
    with pytest.raises(NotDecodable, match=why):
        CloudEvent.from_http(headers, body)


async def test_one_that_does_not_fit_the_stream_is_refused(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    unknown = CloudEvent(id="1", source="s", type="order.lost", payload=b"{}")
    wrong = CloudEvent(id="1", source="s", type="order.paid", payload=b'{"order":1}')

    for event in (unknown, wrong):
        with pytest.raises(NotDecodable):
            await harness.append_cloudevent(orders, event)

    assert harness.store.store.streams.events(orders.name, after=0, limit=9).events == []


async def test_a_trace_comes_through_both_forms_and_one_that_is_none_is_left_out(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = list[tuple[str, str]]()

    @orders.on(order="stream")
    async def note(event: Event[Any]) -> None:
        seen.append((event.trace_parent, event.trace_state))
        assert (CloudEvent.of(event).traceparent, CloudEvent.of(event).tracestate) == seen[-1]

    sent = CloudEvent(
        "1", "s", "order.paid", b'{"order":"a"}', traceparent=TRACE, tracestate="rojo=1,congo=2"
    )
    forms = CloudEvent.from_json(sent.to_json()), CloudEvent.from_http(*sent.binary())
    for number, one in enumerate([*forms, replace(sent, traceparent="mine")]):
        await harness.append_cloudevent(orders, replace(one, id=f"{number}"))
    await harness.settle()

    assert seen == [(TRACE, "rojo=1,congo=2")] * 2 + [("", "")]
