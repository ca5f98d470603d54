"""Events and messages that are full of addresses, and something that listens there: nobody calls.

An address in data is what its sender wishes: to call it would let strangers reach what only this machine
may reach. So all that a handler, an intake, a run and the command line see of events has addresses of a
bait: a port at which something listens, a host's name that is looked up by nobody else, a file. What
Python itself opens, resolves and connects to is overheard; drivers in C are seen by who listens.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from typer.testing import CliRunner

from perdure import Engine, Event, Handler, NonRetryable, Retry, Stream, WorkflowCall, event, workflow
from perdure.asyncapi import comparing
from perdure.blocks.cloudevents import CloudEvent
from perdure.bridges import Relay, kafka, nats
from perdure.bridges.intake import Intake
from perdure.bridges.message import Message
from perdure.core.events import DeadFilter
from perdure.core.positions import position_text
from perdure.errors import DefinitionError
from perdure.faces.cli.main import app
from perdure.stores.opening import open_store

from .planted import first_caught, replaced
from .posted import post
from .row import Control, Counted, Work, chance

_STREAM = "links"
_AWAY = "127.0.0.1:1"
_PATIENCE_S = 20.0
_LOOK_S = 0.02
_ALL = 1_000
_SEEDS_OF_A_CONTROL = 1

Planted = Callable[[], AbstractContextManager[object]]

HOLDS = (
    "no connection is made to an address that an event, a message or a document names",
    "no host that one names is looked up, and no file that one names is opened",
    "they are handled, taken in, started with and told of as any other text",
)


@event("linked")
@dataclass(frozen=True)
class Linked:
    key: str
    link: str


# -- the bait ------------------------------------------------------------------------------------


class _Bait:
    """What nobody is to touch. It is overheard while it is `out`."""

    def __init__(self, folder: Path, draw: Random) -> None:
        self.mark = f"bait{draw.randrange(1 << 60):015x}"
        self.file = folder / self.mark
        self.file.write_text("{}")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._port: int = self._listener.getsockname()[1]
        self.touched: list[str] = []

    @property
    def addresses(self) -> list[str]:
        """Each way in which it can be named."""
        here, elsewhere = f"127.0.0.1:{self._port}", f"{self.mark}.invalid:{self._port}"
        return [
            *(f"{scheme}://{here}/{self.mark}" for scheme in ("http", "https", "nats", "ws", "redis")),
            *(f"{scheme}://{elsewhere}/x" for scheme in ("http", "kafka", "nats")),
            f"http://user:word@{here}/?to=http://{elsewhere}",
            f"http://[::ffff:127.0.0.1]:{self._port}/",
            f"postgresql://postgres@{here}/postgres",
            f"sqlite:///{self.file}-made",
            f"file://{self.file}",
            f"../../../../../../../../..{self.file}",
            f"//{here}/{self.mark}",
        ]

    def hear(self, what: str, arguments: tuple[Any, ...]) -> None:
        """Something was done in this process."""
        address: Any = arguments[1] if what.startswith("socket.") and len(arguments) > 1 else None
        is_port = isinstance(address, tuple) and len(address) > 1 and address[1] == self._port
        if is_port or any(self.mark in str(one) for one in arguments if isinstance(one, (str, bytes, Path))):
            self.touched.append(what)

    @contextmanager
    def out(self) -> Iterator[None]:
        _hearing.append(self)
        try:
            yield
        finally:
            _hearing.remove(self)
            with suppress(BlockingIOError):
                while True:
                    self._listener.accept()[0].close()
                    self.touched.append("a connection")
            self._listener.close()
            if self.file.with_name(f"{self.mark}-made").exists():
                self.touched.append("a file that was made")


_hearing: list[_Bait] = []
_HEARD = ("open", "socket.", "os.", "shutil.", "subprocess.", "sqlite3.", "urllib.", "http.", "ctypes.dlopen")


def _hear(what: str, arguments: tuple[Any, ...]) -> None:
    if _hearing and what.startswith(_HEARD):
        _hearing[-1].hear(what, arguments)


# -- who swallows it -----------------------------------------------------------------------------


@workflow
async def follow(link: str) -> str:
    return link


class _Reader:
    """A stream, and everything that reads along."""

    def __init__(self, bait: _Bait) -> None:
        self._bait = bait
        self.links = Stream(_STREAM, Linked, key=lambda linked: linked.key)
        self.handled: set[str] = set()
        self.waits = workflow(name="waits")(self._wait)
        once = Retry(attempts=1)
        self.handlers: list[Handler[Any]] = [
            self.links.on(retry=once, order="none")(self._note),
            self.links.on(retry=once, order="none")(self._refuse),
            self.links.on(retry=once, transaction=True)(self._note_within),
            self.links.start_on()(self._start),
            self.links.window(initial=0, tumbling=60, name="count")(self._count),
        ]
        self.bridges: list[Relay[Any] | Intake[Any]] = [
            nats.relay(self.links, f"nats://{_AWAY}", subject=lambda one: one.key),
            kafka.relay(self.links, {"bootstrap.servers": _AWAY}, topic=lambda one: one.key),
            post(self.links, self._messages),
        ]

    async def _wait(self) -> str:
        link = self._bait.addresses[0]
        return (await self.links.next(Linked, where={"link": link})).data.link

    async def _note(self, one: Event[Linked]) -> None:
        self.handled.add(f"{one.source} {one.id}")

    async def _refuse(self, one: Event[Linked]) -> None:
        raise NonRetryable(one.data.link)

    def _note_within(self, one: Event[Linked], connection: object) -> None:
        """It has only the event."""

    def _start(self, one: Event[Linked]) -> WorkflowCall[str]:
        return follow(one.data.link)

    def _count(self, total: int, one: Event[Linked]) -> int:
        return total + 1

    def _messages(self) -> list[Message]:
        """Of each address one message that can be read, and one that cannot."""
        found: list[Message] = []
        for link in self._bait.addresses:
            named = {"ce-id": link, "ce-source": link, "ce-type": "linked", "ce-dataschema": link}
            headers = {"ce-specversion": "1.0", "ce-subject": link, "reply-to": link, "link": link, **named}
            for body in ({"key": link, "link": link}, {"$ref": link, "$schema": link}):
                place = len(found)
                found.append(
                    Message(link, 0, place, 1, link, headers, json.dumps(body).encode(), f"m{place}")
                )
        return found


async def _live(url: str, reader: _Reader, bait: _Bait) -> None:
    handlers = [*reader.handlers, *reader.bridges]
    async with Engine(url, workflows=[reader.waits, follow], handlers=handlers) as engine:
        run = await engine.start(reader.waits(), id=bait.addresses[0])
        for link in bait.addresses:
            await engine.append(reader.links, Linked(link, link), id=link)
            body = json.dumps({"key": link, "link": link, "$ref": link}).encode()
            sent = CloudEvent(f"c {link}", link, "linked", body, subject=link, dataschema=link)
            await engine.append_cloudevent(reader.links, sent)
        async with asyncio.timeout(_PATIENCE_S):
            while len(reader.handled) < 3 * len(bait.addresses):  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(_LOOK_S)
            await run.result()
            await engine.drain()


def _tell(url: str, bait: _Bait, reader: _Reader) -> None:
    """Have the command line say all that it can, and a document be compared that refers to the bait."""
    store = open_store(url)
    try:
        numbers = {row.name: row.number for row in store.streams.subscriptions()}
        parked = store.streams.dead.events(numbers["_refuse"], DeadFilter(), limit=_ALL)
    finally:
        store.close()
    refused = f"{_STREAM}/_refuse"
    commands = [
        *(["dead", "list"], ["dead", "list", refused, "--json"], ["list", "--json"], ["lag"], ["doctor"]),
        *(["dead", "show", refused, position_text(one.position)] for one in parked[:2]),
        *(["schema", "history", _STREAM], ["show", bait.addresses[0]], ["export", bait.addresses[0]]),
    ]
    for words in commands:
        answer = CliRunner().invoke(app, [*words, "--store", url])
        assert answer.exit_code == 0, f"{words}: {answer.output}"
    for link in bait.addresses:
        with suppress(DefinitionError):
            comparing.compare({"asyncapi": "3.0.0"}, {"asyncapi": "3.0.0", "channels": {"x": {"$ref": link}}})
            raise AssertionError(f"a document that refers to {link} was taken for whole")


def _play(url: str, folder: Path, seed: int, planted: Planted) -> None:
    bait = _Bait(folder, chance(seed, "bait"))
    with planted(), bait.out():
        reader = _Reader(bait)
        asyncio.run(_live(url, reader, bait))
        _tell(url, bait, reader)
    assert not bait.touched, f"I15: what data names was touched: {', '.join(sorted({*bait.touched}))}"


# -- the row -------------------------------------------------------------------------------------


def counted_baits(work: Work, new_store: Callable[[str, Path], str]) -> Counted:
    """The whole of a row. `new_store` makes one, for a trial of this name in this folder; gives its URL."""
    sys.addaudithook(_hear)
    logging.getLogger().addHandler(logging.NullHandler())  # librdkafka tells of each time a broker is away

    def trial(seed: int, folder: Path) -> None:
        _play(new_store(f"trial_{seed}", folder), folder, seed, nullcontext)

    def controls(work: Work) -> Sequence[Control]:
        return [
            first_caught(work, name, partial(_play_planted, place, planted), seeds=_SEEDS_OF_A_CONTROL)
            for place, (name, planted) in enumerate(_PLANTS.items())
        ]

    def _play_planted(place: int, planted: Planted, seed: int, folder: Path) -> None:
        _play(new_store(f"control_{place}", folder), folder, seed, planted)

    return work.counted(trial, controls=controls)


def _looking_up_schemas() -> AbstractContextManager[object]:
    """The schema that a message names is looked up."""
    read = Intake.read

    def look_up_and_read(self: Intake[Any], message: Message, now_ms: int) -> Any:
        with suppress(Exception):
            urllib.request.urlopen(message.headers["ce-dataschema"], timeout=0.1)
        return read(self, message, now_ms)

    return replaced(Intake, read=look_up_and_read)


def _resolving_sources() -> AbstractContextManager[object]:
    """The host of an event's source is looked up."""
    read = CloudEvent.read

    def resolve_and_read(self: CloudEvent, stream: Stream[Any]) -> Any:
        with suppress(Exception):
            socket.getaddrinfo(urlsplit(self.source).hostname, None)
        return read(self, stream)

    return replaced(CloudEvent, read=resolve_and_read)


def _following_references() -> AbstractContextManager[object]:
    """A file to which a document refers is read."""
    follow = comparing._Document.follow

    def follow_all(self: Any, part: Any) -> Any:
        with suppress(Exception):
            Path(part["$ref"].removeprefix("file://")).read_text()
        return follow(self, part)

    return replaced(comparing._Document, follow=follow_all)


_PLANTS: dict[str, Planted] = {
    "the schema that a message names is fetched": _looking_up_schemas,
    "the host of an event's source is looked up": _resolving_sources,
    "a file to which a document refers is read": _following_references,
}
