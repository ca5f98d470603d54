"""`perdure dead`: what is parked, as people on a command line see it, and what they do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure import Engine, Event, NonRetryable, Stream
from perdure.blocks.event import position_text
from perdure.blocks.serving import _defined
from perdure.faces.cli.output import console
from perdure.stores.sqlite import SqliteStore
from tests.faces.conftest import Perdure

FIRST, SECOND = position_text(1), position_text(2)


@dataclass(frozen=True)
class Order:
    id: str
    cents: int


@pytest.fixture
def parked(project: Path) -> Iterator[None]:
    """Of two events of one key the first has failed."""
    orders: Stream[Order] = Stream("orders", Order, key=lambda order: order.id)

    begun = asyncio.Event()

    @orders.on()
    async def count(event: Event[Order]) -> None:
        begun.set()
        raise NonRetryable("no such customer")

    async def work() -> None:
        async with Engine("sqlite:///perdure.db", handlers=[count]) as engine:
            await engine.append_batch(orders, [Order("17", 1), Order("17", 2)])
            await begun.wait()
            await engine.drain()

    asyncio.run(work())
    yield
    _defined._handlers.clear()  # an engine of another test would serve it


@pytest.mark.usefixtures("parked")
def test_how_all_handlers_stand_is_listed(perdure: Perdure) -> None:
    answer = perdure("dead", "list")
    as_json = perdure("dead", "list", "--json")

    assert answer.code == 0
    assert answer.out.split()[:10] == [
        "HANDLER", "STATUS", "PARKED", "WAITING", "REASON", "orders/count", "active", "2", "0",
    ][:10]  # fmt: skip
    assert as_json.json["handler"] == "orders/count"
    assert as_json.json["status"]["parked"] == {"failed": 1, "behind": 1}


@pytest.mark.usefixtures("parked")
def test_an_intake_is_no_handler_and_is_not_listed(perdure: Perdure, project: Path) -> None:
    store = SqliteStore(project / "perdure.db")
    store.streams.subscribe("nats:SHOP", "perdure", lanes=1, from_start=True, is_intake=True)
    store.close()

    answer = perdure("dead", "list")
    as_json = perdure("dead", "list", "--json")

    assert (answer.code, as_json.code) == (0, 0)
    assert "SHOP" not in answer.out
    assert [line["handler"] for line in as_json.lines] == ["orders/count"]


@pytest.mark.usefixtures("parked")
def test_what_is_parked_is_listed_by_page_key_and_reason(perdure: Perdure) -> None:
    page = perdure("dead", "list", "orders/count", "-n", "1", "--json")
    rest = perdure("dead", "list", "orders/count", "--page", FIRST, "--json")
    failed = perdure("dead", "list", "orders/count", "--reason", "failed")
    none = perdure("dead", "list", "orders/count", "--key", "18")

    assert ([one["position"] for one in page.lines], page.err) == (
        [FIRST], f"There may be more: --page {FIRST}\n",
    )  # fmt: skip
    assert [(one["position"], one["reason"]) for one in rest.lines] == [(SECOND, "behind")]
    assert "NonRetryable: no such customer" in failed.out
    assert (none.out, none.err) == ("", "Nothing is parked.\n")


@pytest.mark.usefixtures("parked")
def test_the_doctor_names_handlers_that_wait_for_a_person(perdure: Perdure) -> None:
    perdure("dead", "stop", "orders/count", "--reason", "maintenance")

    stopped = perdure("doctor")
    as_json = perdure("doctor", "--json").json["handlers"]
    perdure("dead", "resume", "orders/count")
    perdure("dead", "discard", "orders/count", "--key", "17", "--reason", "no use", "--yes")
    well = perdure("doctor")

    assert "  orders/count: stopped: maintenance, 2 events parked\n" in stopped.out
    assert "    perdure dead resume orders/count\n    perdure dead list orders/count\n" in stopped.out
    assert as_json["orders/count"]["parked"] == {"failed": 1, "behind": 1}
    assert "orders/count" not in well.out


@pytest.mark.usefixtures("parked")
def test_a_narrow_terminal_cuts_errors_and_no_position(
    perdure: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "62")
    console.cache_clear()

    listed = perdure("dead", "list", "orders/count").out.splitlines()

    console.cache_clear()
    assert listed[1].split()[:3] == [FIRST, "17", "failed"]
    assert max(map(len, listed)) <= 62
    assert "NonRet" in listed[1]
    assert "customer" not in listed[1]


@pytest.mark.usefixtures("parked")
def test_a_parked_event_is_shown_with_what_was_done_to_it(perdure: Perdure) -> None:
    edited = perdure(
        "dead",
        "edit",
        "orders/count",
        FIRST,
        '{"id": "17", "cents": 3}',
        "--reason",
        "typing error",
        "--by",
        "ann",
    )
    shown = perdure("dead", "show", "orders/count", FIRST)
    as_json = perdure("dead", "show", "orders/count", FIRST, "--json").json

    assert edited.code == 0
    assert '{"id":"17","cents":3}' in shown.out
    assert '{"id":"17","cents":1}' in shown.out
    assert "by ann: typing error" in shown.out
    assert as_json["payload"] == {"id": "17", "cents": 3}
    assert as_json["original"] == {"id": "17", "cents": 1}
    assert as_json["notes"][0]["reason"] == "typing error"


@pytest.mark.usefixtures("parked")
def test_a_redrive_is_a_dry_run_unless_it_is_said_twice(perdure: Perdure) -> None:
    dry = perdure("dead", "redrive", "orders/count", "--all")
    after_dry = perdure("dead", "list", "orders/count", "--json")
    done = perdure("dead", "redrive", "orders/count", "--key", "17", "--yes", "--reason", "mended")
    after = perdure("dead", "list", "orders/count", "--json")
    status = perdure("dead", "list", "--json").json["status"]

    assert (dry.code, dry.out.split()) == (0, [FIRST, SECOND])
    assert "A dry run: 2 events would be redriven. --yes does it." in dry.err
    assert len(after_dry.lines) == 2
    assert done.code == 0
    assert "No worker is running" in done.err
    assert "2 events handed over" in done.err
    assert (after.lines, status["due"]) == ([], 2)


@pytest.mark.usefixtures("parked")
def test_a_discard_wants_to_know_why_and_is_a_dry_run_at_first(perdure: Perdure) -> None:
    dry = perdure("dead", "discard", "orders/count", SECOND)
    silent = perdure("dead", "discard", "orders/count", SECOND, "--yes")
    done = perdure("dead", "discard", "orders/count", SECOND, "--yes", "--reason", "a test", "--json")
    again = perdure("dead", "discard", "orders/count", SECOND, "--yes", "--reason", "a test")

    assert (dry.code, dry.out) == (0, f"{SECOND}\n")
    assert (silent.code, "say why" in silent.err) == (2, True)
    assert done.json == {"discarded": [SECOND]}
    assert again.code == 3


@pytest.mark.usefixtures("parked")
def test_a_handler_is_stopped_and_resumed(perdure: Perdure) -> None:
    stopped = perdure("dead", "stop", "orders/count", "--reason", "maintenance", "--json")
    shown = perdure("dead", "list")
    resumed = perdure("dead", "resume", "orders/count")
    again = perdure("dead", "resume", "orders/count")

    assert stopped.json == {"stopped": True}
    assert "stopped" in shown.out
    assert "maintenance" in shown.out
    assert resumed.err == "orders/count goes on.\n"
    assert "neither stopped nor suspended" in again.err


@pytest.mark.usefixtures("parked")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("list", "orders"), 2, "Write STREAM/HANDLER"),
        (("list", "orders/other"), 3, "Subscribed are: orders/count"),
        (("list", "orders/count", "--reason", "late"), 2, "'late' is no reason"),
        (("show", "orders/count", "17"), 2, "no position"),
        (("show", "orders/count", position_text(3)), 3, "Nothing at"),
        (("list", "orders/count", "--page", "17"), 2, "no position"),
        (("list", "orders/"), 2, "Write STREAM/HANDLER"),
        (("list", "/count"), 2, "Write STREAM/HANDLER"),
        (("redrive", "orders/count"), 2, "say which events: POSITION…, --key KEY, or --all."),
        (("redrive", "orders/count", FIRST, "--all"), 2, "say which"),
        (("redrive", "orders/count", "--all", "--rate", "0"), 2, "--rate 0 hands nothing over"),
        (("redrive", "orders/count", position_text(3)), 3, "Nothing at"),
        (("redrive", "orders/count", position_text(3), "--yes"), 3, "is parked by orders/count"),
        (("redrive", "orders/count", "--key", "18", "--yes"), 0, "There is nothing to redrive."),
        (("discard", "orders/count", FIRST, "--key", "17"), 2, "say which events: POSITION…, or --key KEY."),
        (("discard", "orders/count", position_text(3)), 3, "Nothing at"),
        (("discard", "orders/count", FIRST, position_text(3)), 0, f"Not parked: {position_text(3)}."),
        (("stop", "orders/count", "--reason", ""), 2, "say why"),
        (("edit", "orders/count", FIRST, "{}", "--reason", " "), 2, "say why"),
        (("edit", "orders/count", FIRST, "{", "--reason", "x"), 2, "This is not JSON"),
    ],
)
def test_what_cannot_be_is_said(perdure: Perdure, arguments: tuple[str, ...], code: int, said: str) -> None:
    answer = perdure("dead", *arguments)

    assert (answer.code, said in answer.err) == (code, True), answer.err
