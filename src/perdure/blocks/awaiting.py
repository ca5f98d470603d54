"""`Stream.next`: how a run waits for an event. To the run it is a step, and perhaps a signal.

Law: each event that fits is given to a run once, in their order. Who asks and does not stay
leaves an event on its way; the next one to ask takes that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast, get_type_hints

import msgspec

from ..codec.hints import is_model
from ..codec.json import decoder, encode
from ..core.events import EventRow
from ..core.mailbox import Mailbox
from ..core.retry import Retry
from ..errors import DefinitionError, NotDecodable, NotSerialisable, StreamError
from ..stores.correlation import Wanted, event_from_text, wanted
from .options import Seconds, to_ms
from .signal import standing_host
from .step import step, step_info


async def next_event(
    stream: str, kind: type, type_name: str, where: Mapping[str, object], timeout: Seconds | None
) -> EventRow:
    """The next event of that type in whose fields these values stand."""
    what = f"Stream {stream!r}: next({kind.__name__})"
    host = standing_host(what)
    wait = wanted(stream, type_name, checked_values(kind, where, what))
    timeout_ms = to_ms(timeout, f"{what}: timeout")
    mailbox = cast(Mailbox, host.mailbox(wait.signal, event_from_text))
    async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
        return await _receive(mailbox, wait)


async def _receive(mailbox: Mailbox, wait: Wanted) -> EventRow:
    asking: asyncio.Task[None] | None = None
    if mailbox.owed:
        mailbox.owed -= 1
    else:
        # In a task of its own: whoever waits may be cancelled, but what it has asked for comes.
        asking = asyncio.get_running_loop().create_task(_ask(mailbox, wait))
    try:
        if asking is not None:
            await asyncio.shield(asking)
        return await mailbox.get()
    except asyncio.CancelledError:
        mailbox.owed += 1
        if asking is not None and not asking.done():
            asking.add_done_callback(lambda ended: _not_owed_if_failed(mailbox, ended))
        raise


def _not_owed_if_failed(mailbox: Mailbox, asking: asyncio.Task[None]) -> None:
    if asking.cancelled() or asking.exception() is not None:
        mailbox.owed -= 1


async def _ask(mailbox: Mailbox, wait: Wanted) -> None:
    while True:
        event, is_partial = await next_event_step(wait)
        if event is not None:
            mailbox.put(event.encode())
        if not is_partial:
            return


@step(name="next_event", transaction=True, retry=Retry(give_up_on=(StreamError,)))
def next_event_step(wait: Wanted) -> tuple[str | None, bool]:
    """Look for an event that came before, or have it sent when it comes."""
    info = step_info()
    lent = info.lent()
    found = lent.store.streams.ask_within(lent.connection, wait, info.run_id)
    return found.event, found.is_partial


def checked_values(kind: type, where: Mapping[str, object], what: str) -> dict[str, Any]:
    """The values as JSON has them, by the names of fields that the type declares.

    Raises DefinitionError for a name that it does not, NotSerialisable for a value that does not fit.
    """
    names = _fields_of(kind)
    hints = get_type_hints(kind) if where else {}
    values: dict[str, Any] = {}
    for name, value in where.items():
        known = names.get(name)
        if known is None:
            raise DefinitionError(
                f"{what}: events of this type have no field {name!r}. They have: "
                f"{', '.join(sorted(names)) or 'none'}.",
                hint="where= names fields of the event's type: where={'order': '17'}.",
            )
        place = f"{what}: where[{name!r}]"
        try:
            fitting = decoder(hints.get(name, Any), place)(encode(value, place))
        except NotDecodable as error:
            raise NotSerialisable(place, f"the value does not fit the field: {error}") from error
        values[known] = msgspec.json.decode(encode(fitting, place))
    return values


def _fields_of(kind: type) -> dict[str, str]:
    """The fields of a type of event: how each is named in JSON."""
    if is_model(kind):
        return {name: name for name in cast(Any, kind).model_fields}
    info = msgspec.inspect.type_info(kind)
    if not isinstance(
        info, msgspec.inspect.StructType | msgspec.inspect.DataclassType | msgspec.inspect.TypedDictType
    ):
        return {}
    config: Any = getattr(kind, "__struct_config__", None)
    omits = config is not None and config.omit_defaults
    # A field that is left out when it has its default cannot be looked for.
    return {field.name: field.encode_name for field in info.fields if field.required or not omits}
