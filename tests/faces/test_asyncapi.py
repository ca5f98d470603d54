"""`perdure asyncapi`: a program's streams as a document, and the code against one written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from perdure.blocks.serving import _defined
from tests.faces.conftest import Perdure

EVENTS = '''
from dataclasses import dataclass, field
from typing import Literal

from perdure import Stream, event


@dataclass(frozen=True)
class Line:
    sku: str
    amount: int
    price: float | None = None


@event("order.placed", version=2)
@dataclass(frozen=True)
class Placed:
    """Somebody wants something."""

    order: str
    lines: list[Line]
    way: Literal["web", "till"] = "web"
    tags: dict[str, int] = field(default_factory=dict)


@event("order.paid")
@dataclass(frozen=True)
class Paid:
    order: str


orders = Stream("shop/orders", Placed | Paid, key=lambda one: one.order)
'''

PROGRAM = '''
import events
from events import Paid, Placed, orders

from perdure import Engine, Event, Stream, workflow
from perdure.bridges import nats

__version__ = "1.2"

payments = Stream("payments", Paid)
to_nats = nats.relay(orders, "nats://none", subject="shop", only=[Paid])
from_nats = nats.intake(payments, "nats://none", source="PAYMENTS", consumer="shop")


@orders.on(Placed)
async def count_revenue(event: Event[Placed]) -> None:
    """Adds up what was sold.

    Every day."""


@payments.on()
def audit(event: Event[Paid]) -> None: ...


@workflow
async def pay(order: str) -> None:
    """Pays."""
    await orders.append(Paid(order))


class Till:
    async def place(self, engine: Engine, order: str) -> None:
        await engine.append_batch(events.orders, [events.Placed(order, []), Placed(order, [])])
        await engine.append(payments, value=self.paid)
        orders.append_nothing(order)
'''


@pytest.fixture
def shop(project: Path) -> Iterator[Path]:
    (project / "events.py").write_text(EVENTS, encoding="utf-8")
    (project / "asking.py").write_text(PROGRAM, encoding="utf-8")
    yield project
    _defined._handlers.clear()


@pytest.fixture
def document(shop: Path, perdure: Perdure) -> dict[str, Any]:
    answer = perdure("asyncapi", "asking")
    assert answer.code == 0
    return answer.json


def test_channels_are_streams_and_messages_are_types_of_event(document: dict[str, Any]) -> None:
    channels = document["channels"]
    placed = channels["shop/orders"]["messages"]["order.placed"]
    paid = channels["payments"]["messages"]["order.paid"]

    assert (document["asyncapi"], document["info"]) == ("3.0.0", {"title": "asking", "version": "1.2"})
    assert {name: sorted(channel["messages"]) for name, channel in channels.items()} == {
        "payments": ["order.paid"], "payments.rejected": ["perdure.rejected"],
        "shop/orders": ["order.paid", "order.placed"],
    }  # fmt: skip
    assert channels["shop/orders"]["address"] == "shop/orders"
    assert (placed["name"], placed["title"], placed["summary"]) == (
        "order.placed", "Placed", "Somebody wants something.",
    )  # fmt: skip
    assert "summary" not in paid
    assert placed["headers"]["properties"]["ce-dataschema"]["const"] == "urn:perdure:event:order.placed:2"
    assert placed["payload"] == {"$ref": "#/components/schemas/Placed"}


def test_payloads_are_json_schemas_with_references_into_the_document(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert schemas["Placed"]["properties"]["lines"]["items"] == {"$ref": "#/components/schemas/Line"}
    assert schemas["Placed"]["required"] == ["order", "lines"]
    assert schemas["Line"]["properties"]["amount"] == {"type": "integer"}
    assert "$defs" not in json.dumps(document)


def test_operations_are_handlers_bridges_and_whoever_appends(document: dict[str, Any]) -> None:
    operations = {
        name: (one["action"], [message["$ref"].removeprefix("#/channels/") for message in one["messages"]])
        for name, one in document["operations"].items()
    }

    assert operations == {
        "count_revenue": ("receive", ["shop~1orders/messages/order.placed"]),
        "audit": ("receive", ["payments/messages/order.paid"]),
        "nats": ("receive", ["shop~1orders/messages/order.paid"]),
        "shop.nats_PAYMENTS": ("send", ["payments/messages/order.paid"]),
        "pay": ("send", ["shop~1orders/messages/order.paid"]),
        "Till.place.shop_orders": ("send", ["shop~1orders/messages/order.placed"]),
        "Till.place.payments": ("send", ["payments/messages/order.paid"]),
    }
    assert document["operations"]["count_revenue"]["summary"] == "Adds up what was sold."
    assert document["operations"]["pay"]["channel"] == {"$ref": "#/channels/shop~1orders"}


def test_two_classes_of_one_name_have_schemas_of_their_own(project: Path, perdure: Perdure) -> None:
    one = "from dataclasses import dataclass\nfrom perdure import Stream\n@dataclass\nclass Thing:\n"
    (project / "one.py").write_text(f"{one}    a: int\nones = Stream('ones', Thing)\n", encoding="utf-8")
    (project / "two.py").write_text(
        f"from one import ones\n{one}    b: str\ntwos = Stream('twos', Thing)\n", encoding="utf-8"
    )

    found = perdure("asyncapi", "two").json

    of = {
        name: channel["messages"]["Thing"]["payload"]["$ref"] for name, channel in found["channels"].items()
    }
    properties = {
        name: list(found["components"]["schemas"][reference.rpartition("/")[2]]["properties"])
        for name, reference in of.items()
    }
    assert properties == {"ones": ["a"], "twos": ["b"]}


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_code_is_like_its_own_document(shop: Path, perdure: Perdure, form: str) -> None:
    written = perdure("asyncapi", "asking", *["--yaml"] * (form == "yaml"), "--title", "Shop")
    (shop / "document").write_text(written.out, encoding="utf-8")
    read = yaml.safe_load(written.out) if form == "yaml" else written.json

    answer = perdure("asyncapi", "asking", "--check", "document")

    assert (answer.code, answer.out, read["info"]["title"]) == (0, "", "Shop")
    assert "0 differences" in answer.err


BY_HAND = """
asyncapi: 3.0.0
info: {title: Shop, version: '1'}
channels:
  ordering:
    address: shop/orders
    messages:
      placed: {$ref: '#/components/messages/placed'}
      cancelled: {name: order.cancelled, payload: {type: object}}
  stock: {address: stock, messages: {}}
operations:
  onPlaced:
    action: receive
    channel: {$ref: '#/channels/ordering'}
    messages: [{$ref: '#/channels/ordering/messages/placed'}]
components:
  messages:
    placed:
      name: order.placed
      payload:
        schemaFormat: application/vnd.aai.asyncapi;version=3.0.0
        schema:
          type: object
          required: [order, lines, way]
          properties:
            order: {type: integer}
            way: {type: string, enum: [web, till]}
            tags: {type: object, additionalProperties: {type: string}}
            lines:
              type: array
              items:
                type: object
                required: [sku, amount]
                properties:
                  sku: {type: string}
                  amount: {type: integer}
                  price: {type: [number, 'null']}
                  colour: {type: string}
"""


def test_differences_are_told_by_path_and_side(shop: Path, perdure: Perdure) -> None:
    (shop / "by-hand.yaml").write_text(BY_HAND, encoding="utf-8")

    answer = perdure("asyncapi", "asking", "--check", "by-hand.yaml", "--json")
    found = [(one["path"], one["side"]) for one in answer.json]

    assert answer.code == 1
    assert found == [
        ("payments", "code"),
        ("payments.rejected", "code"),
        ("stock", "document"),
        ("shop/orders/order.cancelled", "document"),
        ("shop/orders/order.paid", "code"),
        ("shop/orders/order.placed/way", "document"),
        ("shop/orders/order.placed/lines[]/colour", "document"),
        ("shop/orders/order.placed/order", "both"),
        ("shop/orders/order.placed/tags{}", "both"),
        ("shop/orders/order.placed", "code"),
    ]
    assert answer.json[-1]["what"] == "that it is sent stands only in the code"
    assert "10 differences" in answer.err


def test_differences_are_lines_for_people(shop: Path, perdure: Perdure) -> None:
    (shop / "by-hand.yaml").write_text(BY_HAND, encoding="utf-8")

    answer = perdure("asyncapi", "asking", "--check", "by-hand.yaml")

    assert "stock: this channel stands only in the document\n" in answer.out
    assert (
        "shop/orders/order.placed/order: it is string in the code, and integer in the document\n"
        in answer.out
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("asyncapi: 2.6.0", "no AsyncAPI 3 document"),
        ("[]", "not an object"),
        ("a: [", "neither JSON nor YAML"),
        ("{asyncapi: 3.0.0, channels: {a: {$ref: '#/b'}}}", "'#/b', which is not there"),
        ("{asyncapi: 3.0.0, channels: {a: {$ref: 'other.yaml#/a'}}}", "cannot be followed"),
        ("{asyncapi: 3.0.0, channels: {a: {$ref: '#/channels/a'}}}", "not in circles"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_document_is_refused(
    shop: Path, perdure: Perdure, text: str | None, complaint: str
) -> None:
    if text is not None:
        (shop / "document").write_text(text, encoding="utf-8")

    answer = perdure("asyncapi", "asking", "--check", "document")

    assert answer.code == 2
    assert complaint in answer.err


def test_a_module_that_is_not_there_is_told_with_a_hint(perdure: Perdure) -> None:
    answer = perdure("asyncapi", "nothing")

    assert answer.code == 2
    assert "There is no module 'nothing'" in answer.err
    assert "hint: A module is named as it would be imported here, or by the path of its file" in answer.err


def test_a_module_without_streams_says_so(project: Path, perdure: Perdure) -> None:
    (project / "empty.py").write_text("", encoding="utf-8")

    answer = perdure("asyncapi", "empty")

    assert "no streams" in answer.err
    assert perdure("asyncapi", "empty", "--yaml", "--json").code == 2
