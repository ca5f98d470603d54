"""Versions of events: registered before the first of them, judged, and read whatever version they have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
import pytest

from perdure import (
    DefinitionError,
    Event,
    NotDecodable,
    NotSerialisable,
    SchemaError,
    Stream,
    UnknownEvent,
    downcast,
    event,
    upcast,
    workflow,
)
from perdure.blocks.serving import _defined
from perdure.core.events import Append, DeadKind, EventRow, NewEvent
from perdure.stores.base import Batch
from perdure.testing import Harness, crash_everywhere
from tests.stores.events import forget_events
from tests.streams.events import Paid, Placed, parked

numbers = count(1)


@pytest.fixture(autouse=True)
def leave_no_handlers_to_the_next() -> Iterator[None]:
    """An engine that serves one that cannot read its stream would not start."""
    yield
    _defined._handlers.clear()


@pytest.fixture
def kind() -> str:
    """The name of a type of event that no other test has: casters are known by it."""
    return f"thing.done-{next(numbers)}"


def make(kind: str, version: int, **fields: Any) -> Any:
    """A type of event; a field is a type, or a type and a default."""
    given = [(name, *one) if isinstance(one, tuple) else (name, one) for name, one in fields.items()]
    return event(kind, version=version)(msgspec.defstruct("Thing", given, kw_only=True, frozen=True))


def registered(harness: Harness, stream: str) -> list[tuple[str, int]]:
    return [(row.type, row.version) for row in harness.store.store.streams.schemas(stream)]


def append_raw(harness: Harness, stream: str, kind: str, version: int, payload: bytes) -> None:
    """As another process does, whose code is not this one's."""
    one = NewEvent(f"{kind}-{version}-{payload!r}", "", kind, version, "", 1, 1, "", payload, False)
    harness.store.store.submit(Batch(appends=[Append(stream, [one])]))


def listen(stream: Stream[Any]) -> list[Any]:
    """What a handler of all events of the stream is given."""
    seen: list[Any] = []

    @stream.on(name="listen")
    async def listen(event: Event[Any]) -> None:
        seen.append(event.data)

    seen.append(listen)  # a handler lives as long as somebody has it
    return seen


async def test_what_events_look_like_is_registered_with_the_first_of_each_type_and_version(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.append(orders, Placed("a"))
    first = registered(harness, orders.name)
    await harness.append_batch(orders, [Placed("a"), Paid("a")])

    assert first == [("order.placed", 1)]
    assert registered(harness, orders.name) == [("order.paid", 2), ("order.placed", 1)]


async def test_many_first_appends_at_once_register_once_and_keep_their_order(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    await harness.restart()
    asked: list[str] = []
    streams = harness.store.store.streams
    has_schema = streams.has_schema
    streams.has_schema = lambda *names, **more: asked.append(names[1]) or has_schema(*names, **more)  # type: ignore[method-assign]

    appended = await asyncio.gather(*(harness.append(orders, Placed(str(n))) for n in range(50)))
    await harness.append(orders, Placed("later"))

    assert sorted(one.position for one in appended) == [one.position for one in appended]
    assert asked == ["order.placed", "order.placed"]  # it is not there; it is there


async def test_a_version_that_looks_otherwise_than_it_did_is_refused(
    harness: Harness, name: str, kind: str
) -> None:
    old, new = make(kind, 1, a=int), make(kind, 1, a=int, b=(str, ""))
    await harness.append(Stream(name, old), old(a=1))
    changed = Stream(name, new)

    with pytest.raises(
        SchemaError, match=r"\$\.b: optional field added.*Raise the version: @event.*version=2"
    ):
        await harness.append(changed, new(a=1))
    with pytest.raises(SchemaError):  # nor the second time
        await harness.append_batch(changed, [new(a=1)])

    await harness.append(Stream(name, old), old(a=2))
    assert len(harness.store.store.streams.events(name, after=0, limit=9).events) == 2


async def test_a_version_of_which_no_event_is_kept_may_still_be_changed(
    harness: Harness, name: str, kind: str
) -> None:
    old, new = make(kind, 1, a=int), make(kind, 1, a=str)
    await harness.append(Stream(name, old), old(a=1))
    forget_events(harness.store.store)

    await harness.append(Stream(name, new), new(a="x"))

    assert registered(harness, name) == [(kind, 1)]


async def test_names_and_remarks_of_a_type_are_not_what_it_looks_like(
    harness: Harness, name: str, kind: str
) -> None:
    @event(kind)
    @dataclass
    class First:
        a: int

    @event(kind)
    @dataclass
    class Second:
        """It has a docstring now."""

        a: int

    await harness.append(Stream(name, First), First(1))

    assert not (await harness.append(Stream(name, Second), Second(1))).is_duplicate


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"a": int, "b": (str, "")}, ""),
        (
            {"a": int, "b": str},
            r"\$\.b: required field added .*: code of version 2 cannot read events of version 1",
        ),
        ({}, r"\$\.a: required field removed .*: code of version 1 cannot read events of version 2"),
    ],
)
async def test_a_new_version_must_go_with_the_events_that_are_kept(
    harness: Harness, name: str, kind: str, fields: dict[str, Any], broken: str
) -> None:
    old, new = make(kind, 1, a=int), make(kind, 2, **fields)
    values = {"a": 1, "b": "x"}
    value = new(**{name: values[name] for name in fields})
    await harness.append(Stream(name, old), old(a=1))

    if broken:
        with pytest.raises(SchemaError, match=broken):
            await harness.append(Stream(name, new), value)
        forget_events(harness.store.store)

    await harness.append(Stream(name, new), value)
    assert registered(harness, name) == [(kind, 1), (kind, 2)]


async def test_a_stream_may_ask_for_less(harness: Harness, name: str, kind: str) -> None:
    old, new = make(kind, 1, a=int, b=str), make(kind, 2, a=int)
    await harness.append(Stream(name, old), old(a=1, b="x"))

    with pytest.raises(SchemaError, match="which is full:"):
        await harness.append(Stream(name, new, compat="full"), new(a=1))
    await harness.append(Stream(name, new, compat="backward_transitive"), new(a=1))


async def test_two_processes_that_bring_versions_that_do_not_go_together_cannot_both_succeed(
    harness: Harness, name: str, kind: str
) -> None:
    """The second one comes between the look of the first and its write."""
    one, other = Stream(name, make(kind, 1, a=int)), Stream(name, make(kind, 2, a=str))
    await harness.restart()
    streams = harness.store.store.streams
    put_schema, between = streams.put_schema, [2]

    def put_later(*given: Any, **more: Any) -> bool:
        if between:
            append = Append(name, [_raw(kind, between.pop())])
            harness.store.store.submit(Batch(appends=[append]))
            other.register(harness.store.store, append, at_ms=0)
        return put_schema(*given, **more)

    streams.put_schema = put_later  # type: ignore[method-assign]
    with pytest.raises(SchemaError, match="type changed"):
        await harness.append(one, one.versions.kinds[kind].cls(a=1))

    assert registered(harness, name) == [(kind, 2)]


# -- reading older ones ----------------------------------------------------------------------------


async def test_an_older_event_is_read_through_all_upcasters(harness: Harness, name: str, kind: str) -> None:
    now = make(kind, 3, cents=int, currency=str)

    @upcast(kind, 1)
    def in_cents(payload: dict[str, Any]) -> dict[str, Any]:
        return {"cents": payload["amount"] * 100}

    @upcast(kind, 2)
    def with_currency(payload: dict[str, Any]) -> dict[str, Any]:
        payload["currency"] = "EUR"
        return payload

    seen = listen(Stream(name, now))
    append_raw(harness, name, kind, 1, b'{"amount":3}')
    append_raw(harness, name, kind, 2, b'{"cents":5}')
    append_raw(harness, name, kind, 3, b'{"cents":7,"currency":"USD"}')
    await harness.restart()
    await harness.settle()

    assert seen[1:] == [
        now(cents=300, currency="EUR"),
        now(cents=5, currency="EUR"),
        now(cents=7, currency="USD"),
    ]


async def test_without_upcasters_an_older_event_is_read_as_it_is(
    harness: Harness, name: str, kind: str
) -> None:
    now = make(kind, 2, a=int, b=(str, "none"))
    seen = listen(Stream(name, now))
    append_raw(harness, name, kind, 1, b'{"a":1,"gone":true}')
    await harness.restart()
    await harness.settle()

    assert seen[1:] == [now(a=1)]


async def test_an_event_that_an_upcaster_fails_on_is_parked_and_the_others_are_handled(
    harness: Harness, name: str, kind: str
) -> None:
    now = make(kind, 2, a=int)

    @upcast(kind, 1)
    def invert(payload: dict[str, Any]) -> Any:
        return payload["a"] if payload["a"] > 1 else {"a": 1 // payload["a"]}

    seen = listen(Stream(name, now))
    for payload in (b'{"a":0}', b'{"a":2}', b'{"a":1}'):
        append_raw(harness, name, kind, 1, payload)
    await harness.restart()
    await harness.settle()

    assert seen[1:] == [now(a=1)]
    assert await parked(harness, name, "listen") == [(1, DeadKind.UNREADABLE), (2, DeadKind.UNREADABLE)]
    first, second = await harness.subscription("listen", name).parked()
    assert "upcast('thing.done" in first.error
    assert "ZeroDivisionError" in first.error
    assert "it gave int, and not a dict" in second.error


async def test_a_gap_between_upcasters_stops_the_engine_before_it_starts(
    harness: Harness, name: str, kind: str
) -> None:
    upcast(kind, 1)(dict)
    upcast(kind, 3)(dict)
    await harness.stop()
    seen = listen(Stream(name, make(kind, 4, a=int)))

    with pytest.raises(
        DefinitionError, match=f"no upcaster makes version 2 into version 3.*upcast..{kind}., 2."
    ):
        await harness.restart()
    assert seen[1:] == []


async def test_a_version_that_is_kept_and_that_no_upcaster_takes_stops_the_engine(
    harness: Harness, name: str, kind: str
) -> None:
    first, now = make(kind, 1, a=int), make(kind, 3, b=int)
    await harness.append(Stream(name, first), first(a=1))
    upcast(kind, 2)(dict)
    seen = listen(Stream(name, now))

    with pytest.raises(DefinitionError, match=r"makes version 1 into version 2.*keeps events of version 1"):
        await harness.restart()
    upcast(kind, 1)(lambda payload: {"b": payload["a"]})
    await harness.restart()
    await harness.settle()

    assert seen[1:] == [now(b=1)]


async def test_an_engine_does_not_start_with_a_type_that_cannot_read_what_is_kept(
    harness: Harness, name: str, kind: str
) -> None:
    first, now = make(kind, 1, a=int), make(kind, 2, a=int, b=str)
    await harness.append(Stream(name, first), first(a=1))
    listener = listen(Stream(name, now))

    with pytest.raises(DefinitionError, match=r"cannot read: \$\.b: required field added"):
        await harness.restart()
    _defined._handlers.clear()
    await harness.restart()
    forget_events(harness.store.store)
    listener = listen(Stream(name, now))
    await harness.restart()

    assert listener[1:] == []


def test_a_second_upcaster_of_a_version_is_refused(kind: str) -> None:
    @upcast(kind, 1)
    def one(payload: dict[str, Any]) -> dict[str, Any]:
        return payload

    with pytest.raises(DefinitionError, match=r"stands on .*other, and on .*one"):

        @upcast(kind, 1)
        def other(payload: dict[str, Any]) -> dict[str, Any]:
            return payload

    with pytest.raises(DefinitionError, match="from 2 on"):
        downcast(kind, 1)


# -- reading newer ones ----------------------------------------------------------------------------


async def test_an_event_of_a_newer_version_is_read_if_the_registry_says_that_it_can_be(
    harness: Harness, name: str, kind: str
) -> None:
    ours, theirs = make(kind, 1, a=int), make(kind, 2, a=int, b=(str, ""))
    seen = listen(Stream(name, ours))
    await harness.restart()

    await harness.append(Stream(name, theirs), theirs(a=1, b="x"))
    await harness.settle()

    assert seen[1:] == [ours(a=1)]


async def test_an_event_of_a_version_that_is_too_new_is_parked_and_says_what_to_deploy(
    harness: Harness, name: str, kind: str
) -> None:
    ours, theirs = make(kind, 1, a=(int, 0)), make(kind, 2, b=(int, 0))
    seen = listen(Stream(name, ours))
    await harness.restart()

    await harness.append(Stream(name, theirs, compat="none"), theirs(b=1))
    append_raw(harness, name, kind, 3, b"{}")
    await harness.append(Stream(name, ours, compat="none"), ours(a=2))
    await harness.settle()

    assert seen[1:] == [ours(a=2)]
    renamed, unknown = await harness.subscription("listen", name).parked()
    assert (renamed.reason, unknown.reason) == ("unreadable", "unreadable")
    assert "this code has 1 and cannot read it ($.b: field renamed" in renamed.error
    assert "version 3; this code has 1" in unknown.error
    assert "Deploy the newer code" in renamed.error


async def test_a_downcaster_lets_older_code_read_newer_events(harness: Harness, name: str, kind: str) -> None:
    ours = make(kind, 1, amount=int)
    downcast(kind, 2)(lambda payload: {"amount": payload["cents"] // 100})
    seen = listen(Stream(name, ours))
    append_raw(harness, name, kind, 2, b'{"cents":300}')
    await harness.restart()
    await harness.settle()

    assert seen[1:] == [ours(amount=3)]


async def test_casters_both_ways_let_a_stream_go_through_a_change_that_breaks(
    harness: Harness, name: str, kind: str
) -> None:
    old, new = make(kind, 1, amount=int), make(kind, 2, cents=int)
    stream = Stream(name, new)
    await harness.append(Stream(name, old), old(amount=1))

    with pytest.raises(SchemaError, match="code of version 2 cannot read"):
        await harness.append(stream, new(cents=1))
    upcast(kind, 1)(lambda payload: {"cents": payload["amount"] * 100})
    with pytest.raises(SchemaError, match="code of version 1 cannot read"):
        await harness.append(stream, new(cents=1))
    downcast(kind, 2)(lambda payload: {"amount": payload["cents"] // 100})

    await harness.append(stream, new(cents=1))


async def test_an_event_of_a_type_that_is_not_known_is_parked_by_its_name(
    harness: Harness, orders: Stream[Placed | Paid]
) -> None:
    seen = listen(orders)
    append_raw(harness, orders.name, "order.lost", 1, b"{}")
    await harness.restart()
    await harness.settle()

    assert seen[1:] == []
    (dead,) = await harness.subscription("listen", orders.name).parked()
    assert "its type 'order.lost' is unknown here; known are: order.paid, order.placed" in dead.error


def test_the_errors_of_reading_can_be_told_apart(orders: Stream[Placed | Paid]) -> None:
    row = harmless_row("order.placed", 9)

    with pytest.raises(UnknownEvent) as found:
        orders.decode(row)

    assert isinstance(found.value, NotDecodable)
    assert (found.value.code, "Deploy" in found.value.hint) == ("unknown_event", True)


async def test_a_value_of_another_streams_type_is_refused(harness: Harness, name: str, kind: str) -> None:
    stream: Stream[Any] = Stream(name, make(kind, 1, a=int))

    with pytest.raises(NotSerialisable, match="it is of type Placed, and the stream is of Thing"):
        await harness.append(stream, Placed("a"))
    assert registered(harness, name) == []


# -- from workflows --------------------------------------------------------------------------------


@event("crossing.made")
@dataclass(frozen=True)
class Made:
    river: str


@event("crossing.made", version=2)
@dataclass(frozen=True)
class Otherwise:
    river: int


made: Stream[Made] = Stream("made", Made)
otherwise: Stream[Otherwise] = Stream("otherwise", Otherwise)


@workflow
async def crosses(count: int) -> None:
    for number in range(count):
        await made.append(Made(str(number)))


@workflow
async def crosses_otherwise() -> None:
    await otherwise.append(Otherwise(1))


async def test_a_workflow_registers_in_the_transaction_that_appends(harness: Harness) -> None:
    await harness.run(crosses(3))

    assert registered(harness, "made") == [("crossing.made", 1)]


async def test_a_schema_and_its_first_event_are_there_together_wherever_the_run_is_crashed() -> None:
    crashes = await crash_everywhere(crosses(2), pairs=True)

    assert crashes.runs > 10


async def test_a_workflow_whose_event_is_refused_gets_the_error_at_once(harness: Harness) -> None:
    before: Stream[Made] = Stream("otherwise", Made)
    await harness.append(before, Made("Elbe"))

    with pytest.raises(Exception, match="type changed") as found:
        await harness.run(crosses_otherwise())

    assert "SchemaError" in repr(found.value) + repr(found.value.__cause__)
    assert len(harness.store.store.streams.events("otherwise", after=0, limit=9).events) == 1


def _raw(kind: str, version: int) -> NewEvent:
    return NewEvent(f"raw-{version}", "", kind, version, "", 1, 1, "", b"{}", False)


def harmless_row(kind: str, version: int) -> EventRow:
    return EventRow(1, "id", "", kind, version, "", 1, 1, "", b"{}")
