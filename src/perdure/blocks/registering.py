"""Brings the schema of a type of event to a store before the first event of it, and judges it there.

Law: an event is appended only once its schema is on disk, or in the same transaction;
and a schema is there only if the stream's mode allows it beside all versions of which
the stream still keeps events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..core.events import SchemaRow, SchemaStand
from ..errors import DefinitionError, SchemaError
from ..schemas.comparing import compare
from ..schemas.compatibility import Compat, breaks_of, tell_breaks
from ..schemas.making import Schema, read_schema
from ..stores.base import Store
from .versions import Kind, gap

_SHOWN = 3


def register(
    store: Store, stream: str, kind: Kind, compat: Compat, *, at_ms: int, connection: Any = None
) -> None:
    """Keep a type's schema, if it is not there. Raises SchemaError, and DefinitionError for a gap.

    With `connection`, in the transaction that it has open. Called from the thread that writes.
    """
    streams = store.streams
    kind.check_chain()
    while not streams.has_schema(stream, kind.name, kind.version, kind.fingerprint, connection=connection):
        stand = streams.schema_stand(stream, connection=connection)
        judge(stand, kind, compat, lambda row: streams.keeps_version(row, connection=connection))
        row = SchemaRow(stream, kind.name, kind.version, kind.fingerprint, kind.schema_text, at_ms)
        streams.put_schema(row, stand, connection=connection)


def judge(stand: SchemaStand, kind: Kind, compat: Compat, is_kept: Callable[[SchemaRow], bool]) -> None:
    """Raise SchemaError for a schema that may not stand beside the others of its type."""
    rows = {row.version: row for row in stand.rows if row.type == kind.name}
    if kind.version in rows:
        _judge_same(rows[kind.version], kind, is_kept)
    broken = breaks_of(schemas_beside(kind, stand.rows), kind.version, compat, bridges=kind.bridges)
    others = {one.other(kind.version) for one in broken}
    kept = {other for other in others if is_kept(rows[other])}
    broken = [one for one in broken if one.other(kind.version) in kept]
    if broken:
        stream = stand.rows[0].stream
        told = tell_breaks(broken)
        said = "; ".join(told[:_SHOWN])
        more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        raise SchemaError(
            f"Event {kind.name!r} version {kind.version} cannot be appended to stream {stream!r}, which is "
            f"{compat}: {said}{more}. Nothing was appended.",
            hint="Keep the field as it was, give a new one a default, bridge the versions with @upcast and "
            "@downcast, or make it a new type of event.",
        )


def schemas_beside(kind: Kind, rows: Iterable[SchemaRow]) -> dict[int, Schema]:
    """The schemas of a type by version: those of a stream, and the code's own in place of its version's."""
    schemas = {row.version: read_schema(row.schema) for row in rows if row.type == kind.name}
    return {**schemas, kind.version: kind.schema}


def _judge_same(row: SchemaRow, kind: Kind, is_kept: Callable[[SchemaRow], bool]) -> None:
    changes = compare(read_schema(row.schema), kind.schema)
    if changes and is_kept(row):
        said = "; ".join(f"{change.path}: {change.rule} ({change.what})" for change in changes[:_SHOWN])
        raise SchemaError(
            f"Event {kind.name!r} version {kind.version} of stream {row.stream!r} is not what that version "
            f"was when it was first appended: {said}. Nothing was appended.",
            hint=f"Raise the version: @event({kind.name!r}, version={kind.version + 1}).",
        )


def check_chains(store: Store, stream: str, kinds: Mapping[str, Kind], compat: Compat) -> None:
    """Raise DefinitionError if events that the stream keeps cannot be read by these types.

    Called from the thread that writes.
    """
    streams = store.streams
    for kind in kinds.values():
        kind.check_chain()
    rows = streams.schemas(stream)
    for row in rows:
        kind = kinds.get(row.type)
        if kind is None or row.version > kind.version:
            continue
        if row.version == kind.version:
            problem = _changed(row, kind, compat)
        else:
            problem = _unreadable(row, kind, compat, schemas_beside(kind, rows))
        if problem is not None and streams.keeps_version(row):
            raise problem


def _changed(row: SchemaRow, kind: Kind, compat: Compat) -> DefinitionError | None:
    """Why events of the code's own version cannot be read, if the class is not what it was."""
    if compat == "none" or row.fingerprint == kind.fingerprint:
        return None
    broken = [
        change for change in compare(read_schema(row.schema), kind.schema) if "backward" in change.breaks
    ]
    if not broken:
        return None
    first = broken[0]
    return DefinitionError(
        f"Event {kind.name!r} version {kind.version} is not what it was, and stream {row.stream!r} keeps "
        f"events that this code cannot read: {first.path}: {first.rule} ({first.what}).",
        hint=f"Make it @event({kind.name!r}, version={kind.version + 1}), with an "
        f"@upcast({kind.name!r}, {kind.version}).",
    )


def _unreadable(
    row: SchemaRow, kind: Kind, compat: Compat, schemas: Mapping[int, Schema]
) -> DefinitionError | None:
    """Why events of an older version cannot be read, if so."""
    bridges = kind.bridges
    if bridges.reach(row.version, kind.version):
        return None
    if bridges.up:
        lost = max(set(range(row.version, kind.version)) - bridges.up)
        return gap(kind.name, lost, f"stream {row.stream!r} keeps events of version {row.version}")
    found = breaks_of(schemas, kind.version, compat, others=[row.version], bridges=bridges)
    broken = [one.change for one in found if one.side == "backward"]
    if not broken:
        return None
    first = broken[0]
    why = f"stream {row.stream!r} keeps events of version {row.version}, which this code cannot read"
    return gap(kind.name, row.version, f"{why}: {first.path}: {first.rule} ({first.what})")
