"""Secrets in events and what comes with them, in errors, in addresses; and where they must not be.

There is no encryption: the store has events in clear, and `dead show` and an export tell of them, since that
is what they are for. What a function raises is told where its failure is: in the log, beside what is parked.
All else must not: an event's data is not in the log or in lists, a redacted export has nothing of what it
was to lose; and nothing at all may have the password of a store or a broker.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

from typer.testing import CliRunner

from perdure import Engine, Event, Handler, Retry, RunParked, Stream, event, step, workflow
from perdure.blocks.window import Aggregation
from perdure.bridges import Relay, kafka, nats
from perdure.bridges.intake import Intake
from perdure.bridges.message import Message
from perdure.core.events import Append, DeadFilter, DeadKind, NewEvent
from perdure.core.positions import position_text
from perdure.faces.cli.main import app
from perdure.journals import redaction
from perdure.runtime.subscriber import Subscriber
from perdure.stores.base import Batch
from perdure.stores.opening import open_store

from .planted import first_caught, replaced
from .posted import post
from .row import Control, Counted, Work, chance

_STREAM = "payments"
_AWAY = "127.0.0.1:1"
_PATIENCE_S = 20.0
_LOOK_S = 0.02
_SEEDS_FOR_A_CONTROL = 1

Planted = Callable[[], AbstractContextManager[object]]


@event("paid")
@dataclass(frozen=True)
class Paid:
    order: str
    card: str
    cents: int = 0
    state: Literal["open", "paid"] = "paid"


@dataclass(frozen=True)
class _Secrets:
    """What is looked for."""

    data: str
    """In the data of an event, and of one that cannot be read."""
    trace: str
    """The trace of an event."""
    header: str
    """In the headers of messages: of one that became an event, and of one that could not."""
    error: str
    """In what handlers, the function of a window, and a step raise."""
    password: str

    @classmethod
    def drawn(cls, draw: Random) -> _Secrets:
        data, header, error, password = (
            f"canary{kind}{draw.randrange(1 << 60):015x}" for kind in ("data", "header", "error", "password")
        )
        return cls(data, f"{draw.randrange(1 << 128):032x}", header, error, password)


class _Shop:
    """A stream with everything that can be told of its events."""

    def __init__(self, secrets: _Secrets) -> None:
        self._secrets = secrets
        self.payments = Stream(_STREAM, Paid, key=lambda paid: paid.order)
        on = self.payments.on(retry=Retry(attempts=1))
        self.waits = workflow(name="waits")(self._wait)
        self.refused = workflow(name="refused")(self._charge_in_vain)
        self._charge = step(name="charge", retry=Retry(attempts=1))(self._refuse_to_charge)
        self.failing: list[Handler[Any]] = [
            on(self._refuse),
            self.payments.on(retry=Retry(attempts=1), transaction=True)(self._refuse_within),
            self._windows(),
        ]
        password = secrets.password
        login = {"sasl.username": "shop", "sasl.password": password, "sasl.mechanism": "PLAIN"}
        config = {"bootstrap.servers": _AWAY, "security.protocol": "SASL_PLAINTEXT", **login}
        self.bridges: list[Relay[Any] | Intake[Any]] = [
            nats.relay(self.payments, f"nats://shop:{password}@{_AWAY}", subject="shop"),
            kafka.relay(self.payments, config, topic="shop"),
            post(self.payments, partial(_messages, secrets.header)),
        ]

    def _windows(self) -> Aggregation[Any, Any]:
        return self.payments.window(initial=0, tumbling=60, name="count")(self._count)

    async def _wait(self) -> str:
        return (await self.payments.next(Paid, where={"order": "1"})).data.order

    async def _charge_in_vain(self) -> None:
        await self._charge()

    async def _refuse_to_charge(self) -> None:
        raise RuntimeError(self._secrets.error)

    async def _refuse(self, one: Event[Paid]) -> None:
        raise RuntimeError(self._secrets.error)

    def _refuse_within(self, one: Event[Paid], connection: object) -> None:
        raise RuntimeError(self._secrets.error)

    def _count(self, total: int, one: Event[Paid]) -> int:
        raise RuntimeError(self._secrets.error)


def _messages(secret: str) -> list[Message]:
    """Two with headers that are secret: an event, and one that is none."""
    headers = {"authorization": secret, "ce-baggage": secret}
    event = {"ce-specversion": "1.0", "ce-id": "m1", "ce-source": "/post", "ce-type": "paid"}
    body = b'{"order": "3", "card": "none"}'
    return [
        Message(_STREAM, 0, 1, 1, "3", {**headers, **event}, body, "m1"),
        Message(_STREAM, 0, 2, 1, "3", {**headers, **event, "ce-time": secret}, b"", "m2"),
    ]


_PARKED = 4
"""What each handler parks: the event with the secret, two that cannot be read, and one from the post."""


async def _live(url: str, shop: _Shop, secrets: _Secrets) -> None:
    """Append what has the secret, and what has it where it cannot be read, until all have parked them."""
    data = secrets.data.encode()
    of_a_type = b'{"order": "2", "card": "%s", "cents": "%s"}' % (data, data)
    of_a_few = b'{"order": "4", "card": "", "state": "%s"}' % data
    handlers = [*shop.failing, *shop.bridges]
    async with Engine(url, workflows=[shop.waits, shop.refused], handlers=handlers) as engine:
        run = await engine.start(shop.waits(), id="waits")
        refused = await engine.start(shop.refused(), id="refused")
        trace = f"00-{secrets.trace}-b7ad6b7169203331-01"
        await engine.append(shop.payments, Paid("1", secrets.data), trace_parent=trace)
        for key, wrong in (("2", of_a_type), ("4", of_a_few)):
            await asyncio.to_thread(_append_raw, url, key, wrong)
        async with asyncio.timeout(_PATIENCE_S):
            for handler in shop.failing:
                while len(await engine.subscription(handler).parked()) < _PARKED:  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(_LOOK_S)
            await run.result()
            with suppress(RunParked):
                await refused.result()


def _append_raw(url: str, key: str, payload: bytes) -> None:
    store = open_store(url)
    try:
        now_ms = time.time_ns() // 1_000_000
        new = NewEvent(f"wrong-{key}", "", "paid", 1, key, now_ms, now_ms, "", payload, True)
        store.submit(Batch(appends=[Append(_STREAM, [new])]))
    finally:
        store.close()


def _look(url: str, folder: Path, seed: int, planted: Planted) -> None:
    secrets = _Secrets.drawn(chance(seed, "secrets"))
    url = url.format(password=secrets.password)
    with planted(), _all_that_is_logged() as log:
        shop = _Shop(secrets)
        asyncio.run(_live(url, shop, secrets))
        said = {"the log": log.getvalue()}
        for words in _commands(shop, _first_parked(url, shop)):
            answer = CliRunner().invoke(app, [*words, "--store", url])
            assert answer.exit_code == 0, f"{words}: {answer.output}"
            said[" ".join(words)] = answer.output
    for kind, (what, tells) in _KINDS.items():
        secret = getattr(secrets, kind)
        found = [where for where, text in said.items() if _is_in(secret, text) and not _may(where, tells)]
        if kind == "password":
            found += [one.name for one in folder.rglob("runs.db*") if secret.encode() in one.read_bytes()]
        assert not found, f"I14: {what} is in {', '.join(found)}"
    _see_that_there_was_something(url, secrets, said)


_SHOW, _OF_HANDLERS = f"dead show {_STREAM}/*", f"dead list {_STREAM}/*"
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "data": ("an event's data", ("export waits", _SHOW)),
    "trace": ("an event's trace context", ("export waits", "export waits --redact *", _SHOW)),
    "header": ("a message's header", ()),
    "error": (
        "what a function raised",
        ("the log", _OF_HANDLERS, _SHOW, "list*", "export refused", "doctor"),
    ),
    "password": ("a password", ()),
}
"""What is looked for, how that is called, and the places where it may be: their task is to tell it."""


def _see_that_there_was_something(url: str, secrets: _Secrets, said: dict[str, str]) -> None:
    """Where a secret is to be told it is; and the headers that nobody tells of are in the store."""
    shown = [(secrets.data, "export waits"), (secrets.trace, "export waits")]
    shown += [(secrets.error, where) for where in ("the log", "export refused")]
    shown += [(secrets.error, where) for where in said if fnmatchcase(where, _SHOW)]
    blind = [where for secret, where in shown if not _is_in(secret, said[where])]
    store = open_store(url)
    try:
        rejected = store.streams.events(f"{_STREAM}.rejected", after=0, limit=2).events
    finally:
        store.close()
    if not any(_is_in(secrets.header, one.payload.decode()) for one in rejected):
        blind.append("the messages that were rejected")
    assert not blind, f"the secret was to be seen in {', '.join(blind)}: nothing was shown by this trial"


def _may(where: str, tells: Sequence[str]) -> bool:
    return any(fnmatchcase(where, place) for place in tells)


def _first_parked(url: str, shop: _Shop) -> dict[str, str]:
    """By handler, the position of the first event that failed: the one with the secret."""
    store = open_store(url)
    try:
        numbers = {row.name: row.number for row in store.streams.subscriptions()}
        dead = store.streams.dead
        first = {
            handler.name: dead.events(numbers[handler.name], DeadFilter(), limit=_PARKED)
            for handler in shop.failing
        }
    finally:
        store.close()
    return {
        name: position_text(next(one.position for one in parked if one.kind == DeadKind.FAILED))
        for name, parked in first.items()
    }


def _commands(shop: _Shop, parked: dict[str, str]) -> list[list[str]]:
    names = [handler.name for handler in shop.failing]
    exports = [[], ["--redact-all"], ["--redact", "$..card", "--redact", "result"]]
    return [
        *(["dead", "list"], ["dead", "list", "--json"], ["list"], ["list", "--json"], ["lag"], ["doctor"]),
        ["schema", "history", _STREAM],
        *(["dead", "list", f"{_STREAM}/{name}", *more] for name in names for more in ([], ["--json"])),
        *(["dead", "show", f"{_STREAM}/{name}", parked[name], "--json"] for name in names),
        *(["export", run, *more] for run in ("waits", "refused") for more in exports),
    ]


def _is_in(secret: str, text: str) -> bool:
    """Also as base64, whichever way it is cut."""
    codes = (b64encode(b" " * shift + secret.encode()).decode()[4:-4] for shift in range(3))
    return secret in text or any(code in text for code in codes)


@contextmanager
def _all_that_is_logged() -> Iterator[io.StringIO]:
    log, root = io.StringIO(), logging.getLogger()
    handler, level, ours = logging.StreamHandler(log), root.level, logging.getLogger("perdure").level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("perdure").setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        logging.getLogger("perdure").setLevel(ours)


def counted_secrets(work: Work, new_store: Callable[[str, Path], str]) -> Counted:
    """The whole of a row.

    `new_store` makes a store for a trial of this name, and gives its URL, perhaps with a `{password}`.
    """

    def trial(seed: int, folder: Path) -> None:
        _look(new_store(f"trial_{seed}", folder), folder, seed, nullcontext)

    def controls(work: Work) -> Sequence[Control]:
        return [
            first_caught(
                work,
                name,
                lambda seed, folder, place=place, planted=planted: _look(
                    new_store(f"control_{place}", folder), folder, seed, planted
                ),
                seeds=_SEEDS_FOR_A_CONTROL,
            )
            for place, (name, planted) in enumerate(_PLANTS.items())
        ]

    return work.counted(trial, controls=controls)


def _telling_the_data() -> AbstractContextManager[object]:
    """What is said of an event has its data."""
    return replaced(Subscriber, _name_of=lambda self, event: f"event {event.payload!r}")


def _redacting_nothing() -> AbstractContextManager[object]:
    """A redacted export has all that it had."""
    return replaced(redaction, redact=lambda journal, patterns: journal)


def _keeping_the_address() -> AbstractContextManager[object]:
    """A relay has its address in its name."""
    init = Relay.__init__

    def named_by_address(self: Relay[Any], stream: Stream[Any], **options: Any) -> None:
        for cell in options["connect"].__closure__ or ():
            if isinstance(cell.cell_contents, str) and "@" in cell.cell_contents:
                options["name"] = cell.cell_contents
        init(self, stream, **options)

    return replaced(Relay, __init__=named_by_address)


def _telling_the_headers() -> AbstractContextManager[object]:
    """What is said of a message that is rejected has its headers."""
    reject = Intake.reject

    def tell_and_reject(self: Intake[Any], message: Message, reason: str, now_ms: int) -> NewEvent:
        logging.getLogger("perdure").warning("Rejected: %s, %s", reason, message)
        return reject(self, message, reason, now_ms)

    return replaced(Intake, reject=tell_and_reject)


_PLANTS: dict[str, Planted] = {
    "what is said of a message has its headers": _telling_the_headers,
    "what is said of an event has its data": _telling_the_data,
    "a redacted export has all that it had": _redacting_nothing,
    "a relay has its address in its name": _keeping_the_address,
}
