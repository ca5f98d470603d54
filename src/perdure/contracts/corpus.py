"""A folder of schemas and samples that goes with the code: one file for each value that the code declares.

Law: a file of an older version stays, and is checked for as long as it is there. Files
are written by `write_samples` alone, and are the same for the same schemas and samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from ..blocks.stream import Stream
from ..core.events import EventRow
from ..errors import NotDecodable
from ..schemas.comparing import compare
from ..schemas.compatibility import breaks_of
from ..schemas.making import Schema, fingerprint_of, read_schema
from .declared import Declared, Name, Value, What
from .findings import Findings
from .live import Live


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file."""

    what: What
    stream: str
    """Of an event; else empty."""
    name: str
    version: int
    fingerprint: str
    json_schema: Schema = msgspec.field(name="schema")
    sample: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """A value as it is stored."""

    @property
    def of(self) -> Name:
        return Name(self.what, self.name, self.stream, self.version)


def path_of(name: Name) -> Path:
    """Where in the folder: `event/orders/order.placed.2.json`, `result/charge.json`."""
    if name.what == "event":
        return Path("event", quote(name.stream, ""), f"{quote(name.name, '')}.{name.version}.json")
    return Path(name.what, f"{quote(name.name, '')}.json")


def read_samples(folder: Path) -> list[Entry]:
    """All files of a folder. Raises NotDecodable for one that is none."""
    entries: list[Entry] = []
    for path in sorted(folder.rglob("*.json")):
        try:
            entries.append(msgspec.json.decode(path.read_bytes(), type=Entry))
        except msgspec.MsgspecError as error:
            raise NotDecodable(
                str(path),
                f"this is no schema file: {error}",
                hint="Only `perdure schema samples` writes here.",
            ) from error
    return entries


def write_samples(folder: Path, declared: Declared, live: Live | None) -> list[Path]:
    """Write what is new, or was changed: gives those files. A sample that is there stays."""
    old = {entry.of: entry for entry in read_samples(folder)} if folder.is_dir() else {}
    written: list[Path] = []
    for name, schema in _schemas(declared, live):
        sample = _sample(name, old.get(name), live)
        entry = Entry(name.what, name.stream, name.name, name.version, fingerprint_of(schema), schema, sample)
        path = folder / path_of(name)
        text = msgspec.json.format(msgspec.json.encode(entry, order="deterministic"), indent=2) + b"\n"
        if not path.is_file() or path.read_bytes() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            written.append(path)
    return written


def _schemas(declared: Declared, live: Live | None) -> Iterator[tuple[Name, Schema]]:
    """The code's own, and those of other versions that the store has events of."""
    for name in declared.events():
        yield name, declared.streams[name.stream].versions.kinds[name.name].schema
    if live is not None:
        known = set(declared.events())
        for row in live.schemas:
            name = Name("event", row.type, row.stream, row.version)
            if row.stream in declared.streams and name not in known and name in live.counts:
                yield name, read_schema(row.schema)
    for name, values in declared.values.items():
        if len(values) == 1:
            yield name, values[0].schema()


def _sample(name: Name, old: Entry | None, live: Live | None) -> msgspec.Raw | msgspec.UnsetType:
    if old is not None and old.sample is not msgspec.UNSET:
        return old.sample
    payload = live.samples.get(name) if live is not None else None
    return msgspec.UNSET if payload is None else msgspec.Raw(payload)


def check_samples(folder: Path, declared: Declared, findings: Findings) -> int:
    """Compare the code with the files of a folder, and read their samples; gives how many there are."""
    entries = {entry.of: entry for entry in read_samples(folder)}
    for name, entry in entries.items():
        if name.what == "event":
            _check_event(name, entry, declared, findings)
        else:
            _check_value(name, entry, declared.values.get(name, []), findings)
    for stream in declared.streams.values():
        _check_versions(stream, entries, findings)
    for name in (*declared.events(), *(name for name, values in declared.values.items() if len(values) == 1)):
        if name not in entries:
            what = f"no file of the folder is of it: `perdure schema samples` writes {path_of(name)}"
            findings.add("missing", str(name), "", what)
    return len(entries)


def _check_event(name: Name, entry: Entry, declared: Declared, findings: Findings) -> None:
    stream = declared.streams.get(name.stream)
    if stream is None or name.name not in stream.versions.kinds:
        findings.add(
            "removed", str(name), "", "the code does not know it any more; delete the file if nobody has it"
        )
        return
    if entry.sample is not msgspec.UNSET:
        row = EventRow(1, path_of(name).name, "", name.name, name.version, "", 0, 0, "", bytes(entry.sample))
        try:
            stream.decode(row)
        except NotDecodable as error:
            findings.add("sample", str(name), error.where, error.reason, side="backward")
    kind = stream.versions.kinds[name.name]
    if name.version == kind.version:
        for change in compare(entry.json_schema, kind.schema):
            what = f"{change.rule}: {change.what}; raise the version to {kind.version + 1}"
            findings.add("changed", str(name), change.path, what)


def _check_versions(stream: Stream[Any], entries: dict[Name, Entry], findings: Findings) -> None:
    for kind in stream.versions.kinds.values():
        schemas = {
            name.version: entry.json_schema
            for name, entry in entries.items()
            if (name.what, name.stream, name.name) == ("event", stream.name, kind.name)
        }
        schemas[kind.version] = kind.schema
        name = str(Name("event", kind.name, stream.name, kind.version))
        for one in breaks_of(schemas, kind.version, stream.compat, bridges=kind.bridges):
            what = f"{one.change.rule} ({one.change.what}), beside version {one.other(kind.version)}"
            findings.add("incompatible", name, one.change.path, what, side=one.side)


def _check_value(name: Name, entry: Entry, values: list[Value], findings: Findings) -> None:
    """What runs hold must be read by the code as it is: there are no versions, and nobody reads it later."""
    if len(values) != 1:
        if not values:
            what = "the code does not know it any more; delete the file if no open run has it"
            findings.add("removed", str(name), "", what)
        return
    (value,) = values
    if entry.sample is not msgspec.UNSET:
        try:
            value.read(bytes(entry.sample))
        except NotDecodable as error:
            findings.add("sample", str(name), error.where, error.reason, side="backward")
    for change in compare(entry.json_schema, value.schema()):
        if "backward" in change.breaks:
            findings.add(
                "incompatible", str(name), change.path, f"{change.rule}: {change.what}", side="backward"
            )
