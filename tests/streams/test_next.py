"""`stream.next` in a workflow: an event by its fields, whether it came before the wait or comes later."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

from perdure import (
    Client,
    DefinitionError,
    Event,
    NotSerialisable,
    OutsideRun,
    Stream,
    continue_as_new,
    workflow,
)
from perdure.core.records import Kind
from perdure.stores.sqlite import awaiting
from perdure.testing import Append, Harness, crash_everywhere, explore
from tests.streams.events import Paid, Placed

only_sqlite = pytest.mark.parametrize("harness", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Arrived:
    parcel: str
    place: str = ""
    weight: float = 0.0


arrivals: Stream[Arrived] = Stream("arrivals", Arrived, key=lambda one: one.parcel)


@workflow
async def waits_for(parcel: str) -> str:
    event = await arrivals.next(Arrived, where={"parcel": parcel})
    return event.data.place


@workflow
async def waits_twice(parcel: str) -> list[str]:
    return [(await arrivals.next(Arrived, where={"parcel": parcel})).data.place for _ in range(2)]


@workflow
async def waits_a_while(parcel: str) -> list[str]:
    places = list[str]()
    while len(places) < 3:
        try:
            places.append((await arrivals.next(Arrived, where={"parcel": parcel}, timeout=60)).data.place)
        except TimeoutError:
            places.append("late")
    return places


async def test_a_run_hears_of_the_event_that_it_waits_for_and_of_no_other(harness: Harness) -> None:
    run = await harness.start(waits_for("a"))
    other = await harness.start(waits_for("b"))
    await harness.settle()
    await harness.append(arrivals, Arrived("a", "here"))
    await harness.append(arrivals, Arrived("a", "there"))
    result = await run.result()
    await harness.settle()

    assert result == "here"
    assert (await other.status()).name == "RUNNING"


async def test_an_event_that_came_before_the_wait_counts(harness: Harness) -> None:
    await harness.append_batch(arrivals, [Arrived("b", "x"), Arrived("a", "early"), Arrived("a", "later")])
    run = await harness.start(waits_twice("a"))

    assert await run.result() == ["early", "later"]


async def test_each_event_is_given_once_in_their_order_over_a_crash(harness: Harness) -> None:
    await harness.append(arrivals, Arrived("a", "1"))
    run = await harness.start(waits_twice("a"), id="one")
    await harness.settle()
    await harness.crash()
    await harness.append(arrivals, Arrived("a", "2"))
    await harness.append(arrivals, Arrived("a", "3"))

    assert await run.result() == ["1", "2"]


async def test_an_event_that_comes_after_a_call_has_given_up_is_the_next_calls(harness: Harness) -> None:
    run = await harness.start(waits_a_while("a"))
    await harness.settle()
    await harness.advance(60)
    await harness.append_batch(arrivals, [Arrived("a", "1"), Arrived("a", "2")])

    assert await run.result() == ["late", "1", "2"]


async def test_calls_at_once_are_given_different_events(harness: Harness) -> None:
    @workflow
    async def waits_at_once() -> list[str]:
        events = await asyncio.gather(*(arrivals.next(Arrived, where={"parcel": "a"}) for _ in range(3)))
        return [event.data.place for event in events]

    await harness.append(arrivals, Arrived("a", "1"))
    run = await harness.start(waits_at_once())
    await harness.settle()
    for place in ("2", "3", "4"):
        await harness.append(arrivals, Arrived("a", place))

    assert sorted(await run.result()) == ["1", "2", "3"]


async def test_a_call_that_is_cancelled_while_it_asks_loses_no_event(harness: Harness) -> None:
    @workflow
    async def gives_up_at_once() -> list[str]:
        waiting = asyncio.ensure_future(arrivals.next(Arrived, where={"parcel": "a"}))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return [(await arrivals.next(Arrived, where={"parcel": "a"})).data.place for _ in range(2)]

    await harness.append_batch(arrivals, [Arrived("a", "1"), Arrived("a", "2")])
    run = await harness.start(gives_up_at_once())

    assert await run.result() == ["1", "2"]


async def test_a_run_that_continues_as_new_is_not_given_the_same_event_again(harness: Harness) -> None:
    @workflow
    async def goes_on(seen: list[str]) -> list[str]:
        if len(seen) == 4:
            return seen
        try:
            event = await arrivals.next(Arrived, where={"parcel": "a"}, timeout=60)
        except TimeoutError:
            continue_as_new(goes_on([*seen, "late"]))
        return continue_as_new(goes_on([*seen, event.data.place]))

    await harness.append_batch(arrivals, [Arrived("a", "1"), Arrived("a", "2")])
    run = await harness.start(goes_on([]))
    await harness.advance(60)
    await harness.append(arrivals, Arrived("a", "3"))

    assert await run.result() == ["1", "2", "late", "3"]


@only_sqlite
async def test_events_that_were_there_before_anybody_asked_are_entered_a_part_at_a_time(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaiting, "ENTERED_AT_ONCE", 3)
    await harness.append_batch(arrivals, [Arrived(str(number % 5), str(number)) for number in range(20)])
    runs = [await harness.start(waits_twice(str(number))) for number in range(5)]
    results = [await run.result() for run in runs]
    late = await harness.start(waits_for("5"))
    await harness.settle()
    await harness.append(arrivals, Arrived("5", "now"))

    assert results == [[str(number), str(number + 5)] for number in range(5)]
    assert await late.result() == "now"


async def test_an_event_that_comes_twice_is_given_once(harness: Harness) -> None:
    run = await harness.start(waits_twice("a"))
    await harness.settle()
    await harness.append(arrivals, Arrived("a", "1"), id="one")
    await harness.append(arrivals, Arrived("a", "1"), id="one")
    await harness.settle()
    await harness.append(arrivals, Arrived("a", "2"))

    assert await run.result() == ["1", "2"]


async def test_what_a_run_is_given_names_the_event(harness: Harness) -> None:
    @workflow
    async def names() -> list[str]:
        event: Event[Arrived] = await arrivals.next(Arrived, where={"parcel": "a", "weight": 2})
        return [
            event.id,
            event.source,
            event.type,
            event.key,
            event.stream,
            event.position,
            event.idempotency_key,
        ]

    appended = await harness.append(arrivals, Arrived("a", "x", 2.0), id="one", source="till")
    run = await harness.start(names(), id="me")
    key = f"me/arrivals/{appended.position}"

    assert await run.result() == ["one", "till", "Arrived", "a", "arrivals", appended.position, key]


@only_sqlite
async def test_a_run_that_has_ended_waits_for_nothing(harness: Harness) -> None:
    run = await harness.start(waits_a_while("a"), id="one")
    await harness.settle()
    await run.cancel()
    await harness.settle()
    with harness.store.store._database.snapshot() as connection:
        left = connection.execute("SELECT count(*) FROM awaiting").get

    assert left == 0


async def test_what_cannot_be_waited_for_is_named(harness: Harness, orders: Stream[Placed | Paid]) -> None:
    @workflow
    async def waits_for_no_field() -> None:
        await arrivals.next(Arrived, where={"parcle": "a"})

    @workflow
    async def waits_for_a_wrong_value() -> None:
        await arrivals.next(Arrived, where={"weight": "heavy"})

    @workflow
    async def waits_for_another_type() -> None:
        await orders.next(Arrived)  # type: ignore[type-var]

    with pytest.raises(Exception, match=r"no field 'parcle'.*parcel, place, weight") as no_field:
        await harness.run(waits_for_no_field())
    with pytest.raises(Exception, match=r"where\['weight'\].*does not fit") as wrong_value:
        await harness.run(waits_for_a_wrong_value())
    with pytest.raises(Exception, match=r"no events of type") as another_type:
        await harness.run(waits_for_another_type())
    with pytest.raises(OutsideRun, match=r"next\(Arrived\)"):
        await arrivals.next(Arrived)

    assert isinstance(no_field.value.__cause__, DefinitionError)
    assert isinstance(wrong_value.value.__cause__, NotSerialisable)
    assert isinstance(another_type.value.__cause__, DefinitionError)


async def test_an_event_of_another_process_reaches_a_run_that_waits(harness: Harness) -> None:
    run = await harness.start(waits_for("a"))
    await harness.settle()
    async with Client(harness.url) as client:
        await client.append(arrivals, Arrived("a", "there"))

    assert await run.result() == "there"


@workflow
async def waits_and_appends() -> list[str]:
    async def append(place: str) -> None:
        await arrivals.append(Arrived("a", place))

    await append("1")
    first = asyncio.ensure_future(arrivals.next(Arrived, where={"parcel": "a"}))
    second = asyncio.ensure_future(arrivals.next(Arrived, where={"parcel": "a"}))
    await append("2")
    places = [(await first).data.place, (await second).data.place]
    with contextlib.suppress(TimeoutError):
        await arrivals.next(Arrived, where={"parcel": "a"}, timeout=5)
    await append("3")
    places.append((await arrivals.next(Arrived, where={"parcel": "a"})).data.place)
    return places


async def test_wherever_a_run_is_crashed_it_is_given_the_same_events() -> None:
    found = list[list[str]]()

    crashes = await crash_everywhere(waits_and_appends(), check=lambda one: found.append(one.result))

    assert set(map(tuple, found)) == {("1", "2", "3")}
    assert crashes.runs > 20


async def test_a_run_is_sent_no_more_events_than_it_asked_for(harness: Harness) -> None:
    @workflow
    async def waits_and_sleeps() -> str:
        event = await arrivals.next(Arrived, where={"parcel": "a"})
        await asyncio.sleep(60)
        return event.data.place

    run = await harness.start(waits_and_sleeps(), id="one")
    await harness.settle()
    for place in "123":
        await harness.append(arrivals, Arrived("a", place))
    await harness.advance(60)
    row = harness.store.run_by_id("one")
    assert row is not None
    kinds = [record.kind for record in harness.store.records(row.number)]

    assert await run.result() == "1"
    assert kinds.count(Kind.SIGNAL) == 1


async def test_wherever_it_is_crashed_a_run_hears_of_events_from_outside() -> None:
    events = [
        Append(arrivals, Arrived("a", "1")),
        Append(arrivals, Arrived("b", "x")),
        Append(arrivals, Arrived("a", "2")),
    ]
    found = list[list[str]]()

    crashes = await crash_everywhere(
        waits_twice("a"), events=events, check=lambda one: found.append(one.result)
    )

    assert set(map(tuple, found)) == {("1", "2")}
    assert crashes.runs > 5


@workflow
async def waits_or_gives_up(parcel: str) -> list[str]:
    places = list[str]()
    for _ in range(2):
        try:
            places.append((await arrivals.next(Arrived, where={"parcel": parcel}, timeout=60)).data.place)
        except TimeoutError:
            places.append("late")
    await arrivals.append(Arrived(parcel, "own"))
    places.append((await arrivals.next(Arrived, where={"parcel": parcel})).data.place)
    return places


async def test_every_order_of_events_and_timeouts_gives_each_event_once_and_in_order() -> None:
    found = set[tuple[str, ...]]()

    await explore(
        waits_or_gives_up("a"),
        events=[[Append(arrivals, Arrived("a", "1")), Append(arrivals, Arrived("a", "2"))]],
        check=lambda one: found.add(tuple(one.result)),
    )

    assert {("1", "2", "own"), ("late", "late", "own"), ("late", "1", "2")} <= found
    for places in found:
        given = [place for place in places if place in "12"]
        assert given == ["1", "2"][: len(given)]


async def test_an_event_reaches_a_run_that_is_nobodys(harness: Harness) -> None:
    run = await harness.start(waits_for("a"), id="one")
    await harness.settle()
    await harness.crash()
    await harness.settle()
    harness.engine._lookout.stop()  # type: ignore[union-attr]
    await harness.append(arrivals, Arrived("a", "here"))

    assert await run.result() == "here"


async def test_what_an_earlier_generation_gave_up_on_is_the_next_ones(harness: Harness) -> None:
    @workflow
    async def gives_up_and_goes_on(is_first: bool) -> str:
        if is_first:
            with pytest.raises(TimeoutError):
                await arrivals.next(Arrived, where={"parcel": "a"}, timeout=60)
            continue_as_new(gives_up_and_goes_on(False))
        await asyncio.sleep(60)
        return (await arrivals.next(Arrived, where={"parcel": "a"})).data.place

    run = await harness.start(gives_up_and_goes_on(True))
    await harness.advance(60)
    await harness.append(arrivals, Arrived("a", "between"))
    await harness.advance(60)

    assert await run.result() == "between"


async def test_what_a_generation_was_given_is_not_given_to_any_that_comes_after_it(harness: Harness) -> None:
    @workflow
    async def asks_now_and_then(generation: int, first: str) -> list[str]:
        if generation == 2:
            continue_as_new(asks_now_and_then(3, first))
        place = (await arrivals.next(Arrived, where={"parcel": "a"})).data.place
        return [first, place] if generation == 3 else continue_as_new(asks_now_and_then(2, place))

    await harness.append_batch(arrivals, [Arrived("a", "1"), Arrived("a", "2")])

    assert await harness.run(asks_now_and_then(1, "")) == ["1", "2"]


async def test_a_run_that_begins_anew_under_the_same_id_is_given_events_from_the_first(
    harness: Harness,
) -> None:
    await harness.append_batch(arrivals, [Arrived("a", "1"), Arrived("a", "2")])
    before = await harness.run(waits_for("a"), id="one")
    again = await harness.start(waits_for("a"), id="one", reuse="always")

    assert (before, await again.result()) == ("1", "1")
