"""Appends events: all of a batch by one statement, which says what became of each.

Law: events of one stream, source and id are one event. Of two transactions that append the
same, one waits for the other, and then finds it there. In one call no identity is there
twice: what an append repeats is settled here, and an append that repeats another's goes later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ...core.events import Append, Clash, NewEvent, Placed
from ...errors import StoreFull
from .arrays import numbers, payloads, texts
from .link import Link, Witness
from .pipeline import Answer

EVENTS_MAX: Final = (1 << 20) - 1
"""Of one transaction: what a position has room for."""

Row = Sequence[Any]
Outcome = list[Placed] | Clash


class Columns(NamedTuple):
    """Events as the function of the schema takes them: a list for each of its parameters but the first."""

    appends: list[int]
    streams: list[int]
    ids: list[str]
    sources: list[str]
    types: list[str]
    versions: list[int]
    keys: list[str]
    times: list[int]
    ats: list[int]
    traces: list[str]
    payloads: list[bytes]
    identities: list[bytes | None]


class _Part:
    """One append: which of its events are to be written, and which of the others are which of those."""

    def __init__(self, append: Append) -> None:
        self.append = append
        self.clash: Clash | None = None
        self.fresh: list[NewEvent] = []
        self.identities: list[bytes | None] = []
        self.places: list[tuple[int, bool]] = []
        """Of each event, which of the fresh ones it is, and whether it repeats it."""
        first: dict[bytes, int] = {}
        for place, event in enumerate(append.events):
            identity = identity_of(append.stream, event.source, event.id) if event.is_resent else None
            twin = first.get(identity) if identity is not None else None
            if twin is None:
                if identity is not None:
                    first[identity] = len(self.fresh)
                self.places.append((len(self.fresh), False))
                self.fresh.append(event)
                self.identities.append(identity)
            elif _content(self.fresh[twin]) == _content(event):
                self.places.append((twin, True))
            else:
                self.clash = Clash(place, 0)
                return

    def outcome(self, first: int, last: int, found: dict[int, tuple[str, int]]) -> Outcome:
        """`first`: the position before that of the whole call's first event; `last`: how many came before."""
        placed: list[Placed] = []
        for place, (fresh, is_repeated) in enumerate(self.places):
            number = last + fresh + 1
            said, position = found.get(number, ("", first + number))
            if said == "clash":
                return Clash(place, position)
            placed.append(Placed(position, is_repeated or said == "twin"))
        return placed


class Appending:
    """What one call of the function writes, and how its answer is read."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self.columns = Columns([], [], [], [], [], [], [], [], [], [], [], [])
        """Of no event: there is nothing to ask."""
        for number, part in enumerate(parts):
            if part.clash is None:
                self._add(number, part)

    def _add(self, number: int, part: _Part) -> None:
        count = len(part.fresh)
        if not count:
            return
        ids, sources, types, versions, keys, times, ats, traces, contents, _ = zip(*part.fresh, strict=True)
        stream = [stream_number(part.append.stream)] * count
        added = (
            [number] * count, stream, ids, sources, types, versions, keys, times, ats, traces, contents,
            part.identities,
        )  # fmt: skip
        for column, more in zip(self.columns, added, strict=True):
            column.extend(more)  # pyright: ignore[reportArgumentType] (each of its own kind)

    def outcomes(self, rows: Iterable[Row]) -> tuple[list[Outcome], Witness | None]:
        """What became of each append; and how to find an event that was written, if any was."""
        first = 0
        found: dict[int, tuple[str, int]] = {}
        for said, number, position, _ in rows:
            if said == "first":
                first = position
            else:
                found[number] = (said, position)
        outcomes: list[Outcome] = []
        last = 0
        witness: Witness | None = None
        for part in self._parts:
            if part.clash is not None:
                outcomes.append(part.clash)
                continue
            outcome = part.outcome(first, last, found)
            last += len(part.fresh)
            outcomes.append(outcome)
            if witness is None and not isinstance(outcome, Clash):
                stream = stream_number(part.append.stream)
                pairs = zip(outcome, part.append.events, strict=True)
                written = ((at, event.id) for (at, known), event in pairs if not known)
                witness = next((("witness_event", stream, *one) for one in written), None)
        return outcomes, witness


class Appends:
    """The appends of one batch, on their way."""

    def __init__(self, link: Link, appends: Sequence[Append], set_clock: Callable[[], object]) -> None:
        """Send them; in a pipeline, as part of it."""
        if sum(len(append.events) for append in appends) > EVENTS_MAX:
            raise StoreFull(
                f"More than {EVENTS_MAX:,} events were to be appended in one commit: nothing was written.",
                hint="Append fewer at a time.",
            )
        self._link = link
        self._set_clock = set_clock
        self._rounds = rounds_of(appends)
        self._sent = self._send(next(self._rounds))

    def _send(self, round_: Appending) -> tuple[Appending, Answer | None]:
        columns = round_.columns
        if not columns.ids:
            return round_, None
        return round_, self._link.run(
            "append_events", None, numbers(columns.appends), numbers(columns.streams), texts(columns.ids),
            texts(columns.sources), texts(columns.types), numbers(columns.versions), texts(columns.keys),
            numbers(columns.times), numbers(columns.ats), texts(columns.traces), payloads(columns.payloads),
            payloads(columns.identities),
        )  # fmt: skip

    def finish(self) -> list[Outcome]:
        """What became of each, in order."""
        outcomes: list[Outcome] = []
        sent = self._sent
        while True:
            round_, cursor = sent
            rows = [] if cursor is None else cursor.fetchall()
            if cursor is not None and not rows:
                self._set_clock()
                _, cursor = self._send(round_)
                rows = [] if cursor is None else cursor.fetchall()
                assert rows, "the clock of the streams was set, and is another server's"
            found, witness = round_.outcomes(rows)
            outcomes += found
            self._link.witness = self._link.witness or witness
            following = next(self._rounds, None)
            if following is None:
                return outcomes
            sent = self._send(following)


def rounds_of(appends: Sequence[Append]) -> Iterator[Appending]:
    """Which appends go together: nearly always all; one that repeats what another had goes after it."""
    parts: list[_Part] = []
    seen: set[bytes | None] = set()
    for append in appends:
        part = _Part(append)
        named = {identity for identity in part.identities if identity is not None}
        if not seen.isdisjoint(named):
            yield Appending(parts)
            parts, seen = [], set()
        parts.append(part)
        seen |= named
    yield Appending(parts)


def stream_number(name: str) -> int:
    """The number of a stream: a hash of its name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def identity_of(stream: str, source: str, event_id: str) -> bytes:
    """The one name of an event."""
    name = json.dumps((stream, source, event_id)).encode()
    return blake2b(name, digest_size=16).digest()


def _content(event: NewEvent) -> tuple[str, int, str, bytes]:
    """What makes two events of one name the same."""
    return event.type, event.version, event.key, event.payload
