"""Relays to a real NATS server, and intakes from it: in order, nothing lost, each event once in the store."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from perdure import BrokerUnavailable, DefinitionError, Engine, Event, Stream
from perdure.bridges import Intake, Message, Outgoing, Rejected, Relay, nats
from perdure.bridges.nats import _Source
from perdure.core.events import DeadKind
from perdure.testing import Harness
from tests.bridges.conftest import NatsServer, events_of, values
from tests.streams.events import Paid, Placed, parked

LONG_S = 20
"""Longer than a bridge waits before it tries again."""


async def published(jetstream: Any, count: int) -> list[Any]:
    """The first so many messages on `shop.>`, in order, once they are there."""
    subscription = await jetstream.subscribe("shop.>", ordered_consumer=True)
    messages = [await subscription.next_msg(timeout=20) for _ in range(count)]
    await subscription.unsubscribe()
    return messages


async def in_all(jetstream: Any) -> int:
    return (await jetstream.stream_info("SHOP")).state.messages


def bodies(messages: list[Any]) -> list[Any]:
    return [json.loads(message.data) for message in messages]


def amounts(events: list[Any]) -> list[int]:
    return [one.amount for one in events]


async def publish(jetstream: Any, *bodies: bytes | Placed, headers: dict[str, str] | None = None) -> None:
    for body in bodies:
        data = json.dumps({"order": body.order, "amount": body.amount}) if isinstance(body, Placed) else body
        await jetstream.publish("shop.in", data.encode() if isinstance(data, str) else data, headers=headers)


def ce(id: str, source: str = "elsewhere", type: str = "order.placed") -> dict[str, str]:
    return {"ce-specversion": "1.0", "ce-id": id, "ce-source": source, "ce-type": type}


# -- relays ------------------------------------------------------------------------------------------


async def test_events_go_out_as_cloud_events_and_those_of_a_key_in_order(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, shop: Any
) -> None:
    relay: Relay[Any] = nats.relay(orders, server.url, subject=lambda event: f"shop.{event.type}")
    await harness.append(orders, Placed("ä b", 1), id="first", source="till/3")
    await harness.append_batch(orders, [Placed(f"k{n % 5}", n) for n in range(50)])
    await harness.append(orders, Paid("k0"))
    messages = await published(shop, 52)

    first = next(message for message in messages if message.headers["ce-id"] == "first")
    assert (first.subject, bodies([first])) == ("shop.order.placed", [{"order": "ä b", "amount": 1}])
    assert first.headers.pop("ce-time").endswith("Z")
    assert first.headers == {
        "ce-specversion": "1.0", "ce-id": "first", "ce-source": "till/3", "ce-type": "order.placed",
        "ce-partitionkey": "%C3%A4%20b", "ce-subject": "%C3%A4%20b",
        "ce-dataschema": "urn:perdure:event:order.placed:1",
        "ce-datacontenttype": "application/json",
        "Nats-Msg-Id": f"{orders.name} till/3 first",
    }  # fmt: skip
    of_key = [
        [one.get("amount") for one in bodies(messages) if one["order"] == f"k{key}"] for key in range(5)
    ]
    assert of_key == [[*range(key, 50, 5), *[None] * (key == 0)] for key in range(5)]
    assert relay.name == "nats"


async def test_a_relay_of_some_types_leaves_the_others(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, shop: Any
) -> None:
    nats.relay(orders, server.url, subject="shop.out", only=[Paid])

    await harness.append_batch(orders, [Placed("a"), Paid("a"), Placed("b"), Paid("b")])

    assert bodies(await published(shop, 2)) == [{"order": "a"}, {"order": "b"}]


async def test_an_event_published_again_after_a_crash_is_one_message(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, shop: Any
) -> None:
    nats.relay(orders, server.url, subject="shop.out")

    await harness.append(orders, Placed("a", 1))
    harness.store.hold_up_commits()
    await published(shop, 1)
    await harness.crash()
    await harness.append(orders, Placed("a", 2))
    messages = await published(shop, 2)

    assert [one["amount"] for one in bodies(messages)] == [1, 2]
    assert await in_all(shop) == 2


async def test_events_wait_for_a_server_that_is_away_and_none_is_parked(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    nats.relay(orders, server.url, subject="shop.out")

    await harness.append_batch(orders, [Placed(f"k{n % 3}", n) for n in range(300)])
    for _ in range(5):
        await harness.until(lambda: "no servers available" in caplog.text)
        await harness.advance(LONG_S)
    server.start()
    shop = await server.jetstream()
    await shop.add_stream(name="SHOP", subjects=["shop.>"])
    await harness.advance(LONG_S)
    messages = await published(shop, 300)

    for key in range(3):
        assert [one["amount"] for one in bodies(messages) if one["order"] == f"k{key}"] == [
            *range(key, 300, 3)
        ]
    await harness.settle()
    assert await parked(harness, orders.name, "nats") == []
    warnings = [record.message for record in caplog.records if record.name == "perdure"]
    doing = f"While relaying {orders.name} to nats, which is tried again until it works"
    assert "NoServersError" in warnings[0]
    assert {text.partition(":")[0] for text in warnings[:-1]} == {doing}
    assert warnings[-1].startswith("It works again")
    assert len(warnings) == len(set(warnings))  # each cause once: the server, and perhaps its stream


async def test_a_server_killed_and_started_again_has_all_events_in_order(
    harness: Harness,
    orders: Stream[Placed | Paid],
    server: NatsServer,
    shop: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nats.relay(orders, server.url, subject="shop.out")

    await harness.append_batch(orders, [Placed("k", n) for n in range(20)])
    await published(shop, 10)
    server.kill()
    await harness.append_batch(orders, [Placed("k", n) for n in range(20, 40)])
    await harness.until(lambda: "tried again until it works" in caplog.text)
    server.start()
    shop = await server.jetstream()
    await harness.advance(LONG_S)
    messages = await published(shop, 40)

    assert [one["amount"] for one in bodies(messages)] == list(range(40))


async def test_a_drain_does_not_wait_for_a_server_that_is_away(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    nats.relay(orders, server.url, subject="shop.out")

    await harness.append_batch(orders, [Placed("a", 1), Placed("b", 2)])
    await harness.until(lambda: "no servers available" in caplog.text)
    async with asyncio.timeout(20):
        await harness.engine.drain(60)
    server.start()
    shop = await server.jetstream()
    await shop.add_stream(name="SHOP", subjects=["shop.>"])
    await harness.restart()

    assert sorted(one["amount"] for one in bodies(await published(shop, 2))) == [1, 2]
    assert await parked(harness, orders.name, "nats") == []


async def test_an_event_that_the_server_can_never_take_is_parked_and_others_go_on(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, shop: Any
) -> None:
    def subject(event: Outgoing) -> str:
        return {"lost": "no subject", "fine": "shop.out", "large": "shop.out"}[event.key]

    await shop.update_stream(name="SHOP", subjects=["shop.>"], max_msg_size=1_000)
    nats.relay(orders, server.url, subject=subject)

    await harness.append_batch(orders, [Placed("lost"), Placed("unknown"), Placed("fine")])
    await harness.append(orders, Placed("large", 10**3_000))
    await published(shop, 1)
    await harness.until(lambda: settled_dead(harness, orders) == 3)

    assert await parked(harness, orders.name, "nats") == [(place, DeadKind.FAILED) for place in (1, 2, 4)]


def settled_dead(harness: Harness, orders: Stream[Any]) -> int:
    streams = harness.store.store.streams
    (row,) = [row for row in streams.subscriptions() if row.stream == orders.name]
    return len(streams.dead_events(row.number, after=0, limit=100))


# -- intakes -----------------------------------------------------------------------------------------


async def test_messages_become_events_in_their_order_and_are_acknowledged(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any
) -> None:
    seen: list[Event[Placed]] = []
    intake: Intake[Placed] = nats.intake(placed, server.url, source="SHOP", consumer="perdure")

    @placed.on()
    async def note(event: Event[Placed]) -> None:
        seen.append(event)

    await publish(shop, *(Placed("a", n) for n in range(1_200)))
    await harness.open_once()
    await harness.until(lambda: len(seen) == 1_200)
    await acknowledged(harness, shop, 1_200)

    assert [event.data.amount for event in seen] == list(range(1_200))
    assert (seen[0].source, seen[0].id.partition("@")[0], seen[0].key) == ("nats:SHOP", "0/1", "a")
    assert (note.name, intake.into) == ("note", placed)


async def acknowledged(harness: Harness, jetstream: Any, place: int, consumer: str = "perdure") -> None:
    """Wait until the consumer's messages are acknowledged up to this one."""
    async with asyncio.timeout(20):
        while True:
            with suppress(NotFoundError):  # it is made by the intake
                if (await jetstream.consumer_info("SHOP", consumer)).ack_floor.stream_seq >= place:
                    return
            await harness.settle()


async def test_cloud_events_keep_their_names_types_and_times(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, shop: Any
) -> None:
    nats.intake(orders, server.url, source="SHOP", consumer="perdure")
    structured = {
        "specversion": "1.0", "id": "2", "source": "till", "type": "order.placed",
        "time": "2026-01-02T03:04:05.5+01:00", "data": {"order": "b", "amount": 2},
    }  # fmt: skip

    await publish(shop, b'{"order": "a"}', headers=ce("%C3%A4", type="order.paid"))
    headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    await publish(shop, json.dumps(structured).encode(), headers=headers)
    await harness.open_once()
    await harness.until(lambda: len(values(harness, orders)) == 2)
    (first, paid), (second, second_value) = events_of(harness, orders)

    assert (first.id, first.source, first.type, first.key, paid) == (
        "ä",
        "elsewhere",
        "order.paid",
        "a",
        Paid("a"),
    )
    assert (second.id, second.source, second_value) == ("2", "till", Placed("b", 2))
    assert second.time_ms == 1767319445500


async def test_what_cannot_be_read_is_kept_beside_with_its_bytes_and_holds_up_nothing(
    harness: Harness, orders: Stream[Placed | Paid], server: NatsServer, shop: Any
) -> None:
    intake = nats.intake(orders, server.url, source="SHOP", consumer="perdure")

    await publish(shop, b"\xff\x00", headers=ce("1"))
    await publish(shop, b'{"order": "no type"}')
    await publish(shop, b"{}", headers={"ce-specversion": "1.0", "ce-id": "3"})
    await publish(shop, b'{"order": "a", "amount": 1}', headers=ce("4"))
    await publish(shop, b'{"order": "a", "amount": 2}', headers=ce("4"))
    await publish(shop, b'{"order": "a", "amount": 1}', headers=ce("4"))
    await publish(shop, b'{"order": "a"}', headers=ce("5", type="order.lost"))
    await publish(shop, b'{"order": "a", "amount": 3}', headers=ce("6"))
    await harness.open_once()
    await acknowledged(harness, shop, 8)
    rejected: list[Rejected] = values(harness, intake.rejected)

    assert amounts(values(harness, orders)) == [1, 3]
    assert [(one.position, one.data) for one in rejected] == [
        (1, b"\xff\x00"), (2, b'{"order": "no type"}'), (3, b"{}"), (7, b'{"order": "a"}'),
        (5, b'{"order": "a", "amount": 2}'),
    ]  # fmt: skip
    for one, reason in zip(
        rejected,
        [
            "malformed",
            "several types of event",
            "no source and no type",
            "'order.lost' is unknown",
            "another event",
        ],
        strict=True,
    ):
        assert reason in one.reason
    assert rejected[0].headers["ce-id"] == "1"
    assert (rejected[0].topic, rejected[0].partition) == ("shop.in", 0)


async def test_a_function_says_what_a_message_means_and_which_means_nothing(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any
) -> None:
    def decode(message: Message) -> Placed | None:
        order, _, amount = message.data.decode().partition(":")
        return Placed(order, int(amount)) if order else None

    intake = nats.intake(placed, server.url, source="SHOP", consumer="perdure", decode=decode)

    await publish(shop, b"a:1", b":", b"b:2", b"c:x", b"d:3")
    await harness.open_once()
    await acknowledged(harness, shop, 5)

    assert values(harness, placed) == [Placed("a", 1), Placed("b", 2), Placed("d", 3)]
    assert [one.data for one in values(harness, intake.rejected)] == [b"c:x"]


async def test_a_function_that_exits_rejects_its_message_and_the_worker_goes_on(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any
) -> None:
    def decode(message: Message) -> Placed:
        return Placed("a", int(message.data)) if message.data != b"exit" else sys.exit(3)

    intake = nats.intake(placed, server.url, source="SHOP", consumer="perdure", decode=decode)

    await publish(shop, b"1", b"exit", b"2")
    await harness.open_once()
    await acknowledged(harness, shop, 3)

    assert values(harness, placed) == [Placed("a", 1), Placed("a", 2)]
    assert [one.reason for one in values(harness, intake.rejected)] == ["SystemExit: 3"]


async def test_a_message_that_was_not_acknowledged_before_a_crash_is_one_event(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any
) -> None:
    intake = nats.intake(placed, server.url, source="SHOP", consumer="perdure")
    await harness.open_once()

    await publish(shop, Placed("a", 1), b"rubbish")
    harness.store.fail_after_commit()
    await harness.until(lambda: len(values(harness, placed)) == 1)
    await harness.crash()
    await publish(shop, Placed("a", 2))
    await harness.until(lambda: len(values(harness, placed)) >= 2)

    assert amounts(values(harness, placed)) == [1, 2]
    assert len(values(harness, intake.rejected)) == 1


async def test_what_a_dead_worker_had_in_hand_comes_before_what_is_new(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any
) -> None:
    await shop.add_consumer("SHOP", durable_name="perdure", ack_policy="explicit", filter_subject="shop.in")
    await publish(shop, *(Placed("a", n) for n in range(10)))
    await shop.publish("shop.other", b"not asked for")
    dead = await shop.pull_subscribe_bind(consumer="perdure", stream="SHOP")
    assert len(await dead.fetch(7)) == 7
    nats.intake(placed, server.url, source="SHOP", consumer="perdure", subject="shop.in")

    await harness.open_once()
    await harness.until(lambda: len(values(harness, placed)) == 10)

    assert amounts(values(harness, placed)) == list(range(10))


async def test_a_delivery_that_got_lost_is_noticed(server: NatsServer, shop: Any) -> None:
    source = await _Source.open(server.url, {}, source="SHOP", consumer="perdure", subject="")
    await publish(shop, Placed("a", 1), Placed("a", 2))
    elsewhere = await shop.pull_subscribe_bind(consumer="perdure", stream="SHOP")
    await elsewhere.fetch(1)

    with pytest.raises(BrokerUnavailable, match="lost on its way"):
        await source.fetch()
    await source.close()
    again = await _Source.open(server.url, {}, source="SHOP", consumer="perdure", subject="")
    found = await again.fetch()
    await again.close()

    assert [message.position for message in found] == [1, 2]


async def test_an_intake_waits_for_its_server_and_for_the_stream_there(
    harness: Harness, placed: Stream[Placed], server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    nats.intake(placed, server.url, source="SHOP", consumer="perdure")
    await harness.open_once()
    await harness.until(lambda: "no servers available" in caplog.text)

    server.start()
    shop = await server.jetstream()
    await harness.advance(LONG_S)
    await harness.until(lambda: "Make the JetStream stream" in caplog.text)
    await shop.add_stream(name="SHOP", subjects=["shop.>"])
    await publish(shop, Placed("a", 1))
    await harness.advance(LONG_S)
    await harness.until(lambda: values(harness, placed))

    assert values(harness, placed) == [Placed("a", 1)]


async def test_a_server_killed_midway_loses_and_doubles_nothing(
    harness: Harness,
    placed: Stream[Placed],
    server: NatsServer,
    shop: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nats.intake(placed, server.url, source="SHOP", consumer="perdure")
    await harness.open_once()
    await publish(shop, *(Placed("a", n) for n in range(500)))
    await harness.until(lambda: values(harness, placed))

    server.kill()
    await harness.until(lambda: "tried again until it works" in caplog.text)
    server.start()
    shop = await server.jetstream()
    await publish(shop, *(Placed("a", n) for n in range(500, 700)))
    await harness.advance(LONG_S)
    await harness.until(lambda: len(values(harness, placed)) >= 700)

    assert amounts(values(harness, placed)) == list(range(700))


async def test_a_stream_made_anew_brings_new_events_at_the_same_places(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    nats.intake(placed, server.url, source="SHOP", consumer="perdure")
    await harness.open_once()
    await publish(shop, Placed("a", 1))
    await harness.until(lambda: len(values(harness, placed)) == 1)

    await shop.delete_stream("SHOP")
    await harness.until(lambda: "tried again until it works" in caplog.text)
    await shop.add_stream(name="SHOP", subjects=["shop.>"])
    await publish(shop, Placed("a", 1))
    await harness.advance(LONG_S)
    await harness.until(lambda: len(values(harness, placed)) == 2)

    assert amounts(values(harness, placed)) == [1, 1]


async def test_a_full_store_acknowledges_nothing_and_goes_on_when_there_is_room(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    nats.intake(placed, server.url, source="SHOP", consumer="perdure")
    await harness.open_once()
    harness.store.fill_up()

    await publish(shop, Placed("a", 1), Placed("a", 2))
    await harness.until(lambda: "tried again until it works" in caplog.text)
    before = (await shop.consumer_info("SHOP", "perdure")).ack_floor.stream_seq
    await harness.advance(LONG_S)
    await harness.until(lambda: len(values(harness, placed)) == 2)

    assert (before, amounts(values(harness, placed))) == (0, [1, 2])


async def test_one_engine_takes_in_and_another_goes_on_when_it_closes(
    tmp_path: Path, placed: Stream[Placed], server: NatsServer, shop: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    seen: asyncio.Queue[int] = asyncio.Queue()
    intake = nats.intake(placed, server.url, source="SHOP", consumer="perdure")

    @placed.on()
    async def note(event: Event[Placed]) -> None:
        seen.put_nowait(event.data.amount)

    async with Engine(url, handlers=[intake, note]) as first, Engine(url, handlers=[intake, note]):
        await publish(shop, Placed("a", 1))
        before = await asyncio.wait_for(seen.get(), 20)
        await first.drain()
        await first.__aexit__(None, None, None)
        await publish(shop, Placed("a", 2))
        after = await asyncio.wait_for(seen.get(), 20)

    assert (before, after) == (1, 2)


async def test_a_round_trip_brings_nothing_twice(
    harness: Harness, placed: Stream[Placed], server: NatsServer, shop: Any
) -> None:
    nats.relay(placed, server.url, subject="shop.in")
    nats.intake(placed, server.url, source="SHOP", consumer="perdure")

    await harness.append(placed, Placed("a", 1), id="1", source="here")
    await acknowledged(harness, shop, 1)
    await harness.settle()

    assert amounts(values(harness, placed)) == [1]


def test_dedup_is_one_of_two(placed: Stream[Placed]) -> None:
    with pytest.raises(DefinitionError, match="'id' or 'position'"):
        nats.intake(placed, "nats://none", source="SHOP", consumer="perdure", dedup="never")  # type: ignore[arg-type]
