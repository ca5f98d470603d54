"""`events`: what people see of a stream."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure import Client, Stream
from perdure.faces.cli.output import console
from tests.faces.conftest import Perdure, Spawn, next_line


@dataclass(frozen=True)
class Placed:
    key: str
    note: str = ""


orders = Stream("orders", Placed, key=lambda order: order.key)


@pytest.fixture(autouse=True)
def appended(project: Path) -> None:
    async def fill() -> None:
        async with Client(f"sqlite:///{project}/perdure.db") as client:
            for number, key in enumerate("abab"):
                await client.append(orders, Placed(key), id=str(number), source="shop")

    asyncio.run(fill())


def test_each_event_is_a_line_with_its_position(perdure: Perdure) -> None:
    lines = perdure("events", "orders").out.splitlines()

    assert [line.split()[0] for line in lines] == [f"000000000000{n}" for n in (1, 2, 3, 4)]
    assert lines[1].endswith('Placed  b  {"key":"b","note":""}')


def test_those_of_a_key_and_some_at_a_time_with_where_to_read_on(perdure: Perdure) -> None:
    some = perdure("events", "orders", "--limit", "3")
    rest = perdure("events", "orders", *some.err.split()[-2:])
    of_key = perdure("events", "orders", "--key", "b", "-n", "1")

    assert len(some.out.splitlines()) == 3
    assert rest.out.split()[0] == "0000000000004"
    assert (len(of_key.out.splitlines()), of_key.err.split()[-1]) == (1, "0000000000004")


def test_as_json_each_is_a_line_whole(perdure: Perdure) -> None:
    found = [json.loads(line) for line in perdure("events", "orders", "--json").out.splitlines()]

    assert [one["id"] for one in found] == ["0", "1", "2", "3"]
    assert found[0]["data"] == {"key": "a", "note": ""}
    assert (found[0]["source"], found[0]["type"], found[0]["version"]) == ("shop", "Placed", 1)


def test_a_line_is_no_wider_than_the_terminal(
    perdure: Perdure, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        async with Client(f"sqlite:///{project}/perdure.db") as client:
            await client.append(orders, Placed("c", "x" * 1_000))

    asyncio.run(fill())
    monkeypatch.setenv("COLUMNS", "100")
    console.cache_clear()

    assert max(map(len, perdure("events", "orders").out.splitlines())) == 100
    console.cache_clear()


def test_what_is_not_there_is_said(perdure: Perdure) -> None:
    at_end = perdure("events", "orders", "--from", "latest")
    unknown = perdure("events", "ordres")
    no_place = perdure("events", "orders", "--from", "the middle")

    assert (at_end.code, at_end.out, at_end.err) == (0, "", "Stream 'orders' keeps no such event.\n")
    assert unknown.err == "Stream 'ordres' keeps no such event.\n"
    assert (no_place.code, "is no time" in no_place.err) == (2, True)


def test_whether_there_are_more_is_known_at_the_end_of_a_page(perdure: Perdure) -> None:
    assert perdure("events", "orders", "-n", "4").err == ""
    assert perdure("events", "orders", "-n", "2", "--key", "b").err == ""


def test_what_comes_is_followed_until_ctrl_c(project: Path, spawn: Spawn) -> None:
    async def append() -> None:
        async with Client(f"sqlite:///{project}/perdure.db") as client:
            await client.append(orders, Placed("new"))

    with spawn("events", "orders", "--from", "0000000000004", "--follow") as process:
        first = next_line(process, "0000000000004")
        asyncio.run(append())
        second = next_line(process, "0000000000005")
        process.send_signal(signal.SIGINT)
        code = process.wait(20)

    assert (first.split()[4:6], second.split()[4:6]) == (["Placed", "b"], ["Placed", "new"])
    assert code == 130
