"""Secrets in events, and in the addresses of stores and brokers, and every place where they must not be.

There is no encryption: the store has events in clear, and `dead show`, `show` and an export tell of them,
since that is what they are for. All else must not: the log, the lists of what is parked, a redacted export;
and nothing at all may have the password of a store or a broker.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from typer.testing import CliRunner

from perdure import Engine, Event, Handler, Retry, Stream, event, workflow
from perdure.blocks.window import Aggregation
from perdure.bridges import Relay, kafka, nats
from perdure.core.events import Append, NewEvent
from perdure.faces.cli.main import app
from perdure.journals import redaction
from perdure.runtime.subscriber import Subscriber
from perdure.stores.base import Batch
from perdure.stores.opening import open_store

from .planted import first_caught, replaced
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


class _Shop:
    """A stream with everything that can be told of its events."""

    def __init__(self, password: str) -> None:
        self.payments = Stream(_STREAM, Paid, key=lambda paid: paid.order)
        on = self.payments.on(retry=Retry(attempts=1))
        self.waits = workflow(name="waits")(self._wait)
        self.failing: list[Handler[Any]] = [
            on(self._refuse),
            self.payments.on(retry=Retry(attempts=1), transaction=True)(self._refuse_within),
            self._windows(),
        ]
        login = {"sasl.username": "shop", "sasl.password": password, "sasl.mechanism": "PLAIN"}
        config = {"bootstrap.servers": _AWAY, "security.protocol": "SASL_PLAINTEXT", **login}
        self.relays: list[Relay[Any]] = [
            nats.relay(self.payments, f"nats://shop:{password}@{_AWAY}", subject="shop"),
            kafka.relay(self.payments, config, topic="shop"),
        ]

    def _windows(self) -> Aggregation[Any, Any]:
        return self.payments.window(initial=0, tumbling=60, name="count")(self._count)

    async def _wait(self) -> str:
        return (await self.payments.next(Paid, where={"order": "1"})).data.order

    async def _refuse(self, one: Event[Paid]) -> None:
        raise RuntimeError("no")

    def _refuse_within(self, one: Event[Paid], connection: object) -> None:
        raise RuntimeError("no")

    def _count(self, total: int, one: Event[Paid]) -> int:
        raise RuntimeError("no")


async def _live(url: str, shop: _Shop, data: str, *, waits: bool) -> None:
    """Append what has the secret, and what has it where it cannot be read, until all have parked both."""
    wrong = b'{"order": "2", "card": "%s", "cents": "%s"}' % (data.encode(), data.encode())
    async with Engine(url, workflows=[shop.waits], handlers=[*shop.failing, *shop.relays]) as engine:
        run = await engine.start(shop.waits(), id="waits") if waits else None
        await engine.append(shop.payments, Paid("1", data))
        await asyncio.to_thread(_append_raw, url, wrong)
        async with asyncio.timeout(_PATIENCE_S):
            for handler in shop.failing:
                while len(await engine.subscription(handler).parked()) < 2:  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(_LOOK_S)
            if run is not None:
                await run.result()


def _append_raw(url: str, payload: bytes) -> None:
    store = open_store(url)
    try:
        now_ms = time.time_ns() // 1_000_000
        new = NewEvent("wrong", "", "paid", 1, "2", now_ms, now_ms, "", payload, True)
        store.submit(Batch(appends=[Append(_STREAM, [new])]))
    finally:
        store.close()


def _look(url: str, folder: Path, seed: int, planted: Planted) -> None:
    waits = url.startswith("sqlite:")  # runs wait for events there only
    draw = chance(seed, "secrets")
    data, password = _secret("data", draw), _secret("password", draw)
    with planted(), _all_that_is_logged() as log:
        shop = _Shop(password)
        asyncio.run(_live(url.format(password=password), shop, data, waits=waits))
        said = {"the log": log.getvalue()}
        for words in _commands(shop, waits=waits):
            answer = CliRunner().invoke(app, [*words, "--store", url.format(password=password)])
            assert answer.exit_code == 0, f"{words}: {answer.output}"
            said[" ".join(words)] = answer.output
    found = [where for where, text in said.items() if _is_in(data, text) and not _tells_data(where)]
    assert not found, f"I14: an event's data is in {', '.join(found)}"
    found = [where for where, text in said.items() if _is_in(password, text)]
    found += [path.name for path in folder.rglob("runs.db*") if password.encode() in path.read_bytes()]
    assert not found, f"I14: a password is in {', '.join(found)}"
    blind = [where for where, text in said.items() if _tells_data(where) and not _is_in(data, text)]
    assert not blind, f"the secret was to be seen in {', '.join(blind)}: nothing was shown by this trial"


def _commands(shop: _Shop, *, waits: bool) -> list[list[str]]:
    of_handlers = [["dead", "list", f"{_STREAM}/{handler.name}"] for handler in shop.failing]
    exports = [["export", "waits", *more] for more in ([], ["--redact-all"], ["--redact", "$..card"])]
    return [
        *(["dead", "list"], ["list"], ["doctor"], ["schema", "history", _STREAM], *of_handlers),
        *(exports if waits else ()),
    ]


def _tells_data(where: str) -> bool:
    """An export that is not redacted: else this would not know that there is something to find."""
    return where == "export waits"


def _secret(kind: str, draw: Random) -> str:
    return f"canary{kind}{draw.randrange(1 << 60):015x}"


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


def counted_secrets(work: Work, new_store: Callable[[str, Path], str], *, plants: Sequence[str]) -> Counted:
    """The whole of a row. `plants` names the controls.

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
            for place, (name, planted) in enumerate((name, PLANTS[name]) for name in plants)
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


PLANTS: dict[str, Planted] = {
    "what is said of an event has its data": _telling_the_data,
    "a redacted export has all that it had": _redacting_nothing,
    "a relay has its address in its name": _keeping_the_address,
}
