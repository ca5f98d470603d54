"""The values that a store keeps, read by new code: all events, and what open runs hold.

Law: the store is only read, a page at a time, and may have a worker meanwhile. No code
of a workflow or a step runs, but upcasters do: whether runs go on with the code is for
`deploy-check` to say, which replays them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..blocks.registering import schemas_beside
from ..blocks.stream import Stream
from ..core.events import EventRow, SchemaRow
from ..core.journal import key_parts
from ..core.records import Kind, MessageKind, Record, RunRow
from ..errors import DefinitionError, NotDecodable, UnknownEvent
from ..schemas.comparing import compare
from ..schemas.compatibility import breaks_of
from ..schemas.making import read_schema
from ..stores.base import Store
from .declared import Declared, Name, What
from .findings import Findings

_PAGE = 1_000
_RECORDED: dict[int, What] = {
    Kind.STEP: "result", Kind.CHILD: "result", Kind.SIGNAL: "signal", Kind.UPDATE: "update"
}  # fmt: skip
_TOLD: dict[int, What] = {MessageKind.SIGNAL: "signal", MessageKind.UPDATE: "update"}


@dataclass(slots=True)
class Live:
    """What a store was found to keep."""

    counts: dict[Name, int] = field(default_factory=dict[Name, int])
    samples: dict[Name, bytes] = field(default_factory=dict[Name, bytes])
    """The first one of each."""
    runs: int = 0
    schemas: list[SchemaRow] = field(default_factory=list[SchemaRow])

    def note(self, name: Name, payload: bytes) -> None:
        """One more."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self.samples.setdefault(name, payload)


def check_live(store: Store, declared: Declared, findings: Findings) -> Live:
    """Read all that a store keeps by this code. Raises StoreError when the store cannot be read."""
    live = Live()
    if declared.streams:
        live.schemas = store.streams.schemas()
    for stream in declared.streams.values():
        _check_events(store, stream, live, findings)
        _check_versions(stream, live, findings)
    if declared.values:
        _check_runs(store, declared, live, findings)
    return live


def _check_events(store: Store, stream: Stream[object], live: Live, findings: Findings) -> None:
    versions, after = stream.versions, 0
    rows = [row for row in live.schemas if row.stream == stream.name]
    for row in rows:
        versions.learn(row)
    while True:
        page = store.streams.events(stream.name, after=after, limit=_PAGE)
        for event in page.events:
            if not event.damage:
                _check_event(stream, event, live, findings)
        if page.after == after:
            return
        after = page.after


def _check_event(stream: Stream[object], event: EventRow, live: Live, findings: Findings) -> None:
    name = Name("event", event.type, stream.name, event.version)
    live.note(name, event.payload)
    try:
        value = stream.decode(event)
        if live.counts[name] == 1 and stream.decode(event) != value:
            findings.add("impure", str(name), "", "read twice, it is not the same: an upcaster is not pure")
    except NotDecodable as error:
        _add_unreadable(findings, name, error, f"event {event.id}")


def _check_versions(stream: Stream[object], live: Live, findings: Findings) -> None:
    """What the registry has, beside the code: only versions of which there are events count."""
    rows = [row for row in live.schemas if row.stream == stream.name]
    for kind in stream.versions.kinds.values():
        name = Name("event", kind.name, stream.name, kind.version)
        try:
            kind.check_chain()
        except DefinitionError as error:
            findings.add("gap", str(name), "", error.what)
        same = [row for row in rows if (row.type, row.version) == (kind.name, kind.version)]
        if same and live.counts.get(name):
            for change in compare(read_schema(same[0].schema), kind.schema):
                what = f"{change.rule}: {change.what}; raise the version to {kind.version + 1}"
                findings.add("changed", str(name), change.path, what)
        schemas = schemas_beside(kind, rows)
        kept = [version for version in schemas if live.counts.get(name._replace(version=version))]
        for one in breaks_of(schemas, kind.version, stream.compat, others=kept, bridges=kind.bridges):
            what = f"{one.change.rule} ({one.change.what}), beside version {one.other(kind.version)}"
            findings.add("incompatible", str(name), one.change.path, what, side=one.side)


def _check_runs(store: Store, declared: Declared, live: Live, findings: Findings) -> None:
    after = 0
    while page := store.open_runs(after=after, limit=_PAGE):
        after = page[-1][0].number
        for row, records in page:
            live.runs += 1
            for name, payload in _held(store, declared, row, records):
                _check_value(declared, name, payload, f"run {row.id}", live, findings)


def _held(
    store: Store, declared: Declared, row: RunRow, records: list[Record]
) -> Iterator[tuple[Name, bytes]]:
    """What an open run has on disk: its input, what it was answered and told, and what it published."""
    yield Name("input", row.workflow), row.input
    for record in records:
        what = _RECORDED.get(record.kind)
        if what is not None and record.payload is not None:
            yield Name(what, _name_of(record)), record.payload
    for message in store.messages_for(row.number):
        told = _TOLD.get(message.kind)
        if told is not None and message.payload is not None:
            yield Name(told, message.name), message.payload
    if any(name.what == "state" for name in declared.values):
        for state in store.states(row.number).values():
            yield Name("state", state.name), state.payload


def _name_of(record: Record) -> str:
    match record.kind:
        case Kind.SIGNAL:
            return record.key
        case Kind.UPDATE:
            return record.key.rpartition("/")[0]
        case _:
            return key_parts(record.key)[2].removesuffix("/end")


def _check_value(
    declared: Declared, name: Name, payload: bytes, met_in: str, live: Live, findings: Findings
) -> None:
    values = declared.values.get(name)
    if values is None:
        return  # not of these modules; `deploy-check` says which workflows are missing
    live.note(name, payload)
    failure: NotDecodable | None = None
    for value in values:
        try:
            value.read(payload)
        except NotDecodable as error:
            failure = error
        else:
            return
    assert failure is not None, f"nothing was declared as {name}"
    _add_unreadable(findings, name, failure, met_in)


def _add_unreadable(findings: Findings, name: Name, error: NotDecodable, met_in: str) -> None:
    # That an event is unknown is said of the event; all else of a place in its type.
    path = "" if isinstance(error, UnknownEvent) else error.where
    findings.add("unreadable", str(name), path, error.reason, side="backward", met_in=met_in)
