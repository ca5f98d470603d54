"""The form of an exported journal: JSON for programs of any language, in an order that git can compare.

docs/internals/journal-format.md describes it for people, and `schema.json`
beside this file for programs. The law: what is written can be read back to the
same rows, byte for byte of each value but for the spaces between its parts; and
a file of an older version of the form is read by every later release.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..core.records import Kind, Record, RunRow, Status
from ..errors import NotDecodable

FORMAT = "perdure-journal"
VERSION = 1
SCHEMA_PATH = Path(__file__).with_name("schema.json")
"""The form as a JSON Schema."""


class Child(msgspec.Struct, frozen=True):
    """A run that this run started."""

    id: str
    workflow: str
    status: str
    key: str
    """The parent's key of the call."""


class Journal(msgspec.Struct, frozen=True):
    """One run as the store has it: its row, its records, and what stands beside them."""

    run: RunRow
    records: list[Record]
    tags: dict[str, str] = {}
    parent: str | None = None
    """The parent's run id."""
    children: list[Child] = []
    redacted: list[str] = []
    """The patterns by which values were taken out; empty when all are there."""
    taken: frozenset[int] = frozenset()
    """The seqs of the records whose values were taken out."""

    def find(self, name: str) -> Record | None:
        """The first record of this seq, key, or name of a step, child, signal or patch; None without one."""
        for record in self.records:
            key = record.key
            if name in (str(record.seq), key, key.removesuffix("/end").split("/", 2)[-1]):
                return record
        return None


class _Run(msgspec.Struct):
    id: str
    generation: int
    workflow: str
    status: str
    created_at: str
    created_at_ms: int
    ended_at: str | None
    ended_at_ms: int | None
    deadline_ms: int | None
    python: str
    seed: str
    number: int
    parent: str | None
    tags: dict[str, str]
    input: Raw
    result: Raw | UnsetType = UNSET
    failure: Raw | UnsetType = UNSET


class _Record(msgspec.Struct, omit_defaults=True):
    seq: int
    kind: str
    key: str
    digest: int
    at: str
    at_ms: int
    redacted: bool = False
    value: Raw | UnsetType = UNSET


class _File(msgspec.Struct):
    format: str
    version: int
    redacted: list[str]
    run: _Run
    records: list[_Record]
    children: list[Child]


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(_File).decode
_read_head = msgspec.json.Decoder(_Head).decode


def word(kind: Kind | Status) -> str:
    """A kind or status as the form names it: `step_failed`."""
    return kind.name.lower()


def write_journal(journal: Journal) -> bytes:
    """A journal as one line of JSON. The same journal gives the same bytes."""
    row = journal.run
    status = Status(row.status)
    run = _Run(
        id=row.id,
        generation=row.generation,
        workflow=row.workflow,
        status=word(status),
        created_at=_rfc3339(row.created_at_ms),
        created_at_ms=row.created_at_ms,
        ended_at=None if row.ended_at_ms is None else _rfc3339(row.ended_at_ms),
        ended_at_ms=row.ended_at_ms,
        deadline_ms=row.deadline_ms,
        python=row.python,
        seed=row.seed.hex(),
        number=row.number,
        parent=journal.parent,
        tags=dict(sorted(journal.tags.items())),
        input=Raw(row.input),
    )
    if row.output is not None:
        if status is Status.COMPLETED:
            run.result = Raw(row.output)
        else:
            run.failure = Raw(row.output)
    records = [_written(record, taken=record.seq in journal.taken) for record in journal.records]
    return _write(_File(FORMAT, VERSION, journal.redacted, run, records, journal.children))


def pretty(data: bytes) -> bytes:
    """JSON with a line for each part, and an end of line."""
    return msgspec.json.format(data, indent=2) + b"\n"


def _written(record: Record, *, taken: bool) -> _Record:
    kind = Kind(record.kind)
    payload = record.payload
    value: Raw | UnsetType = UNSET
    if payload is not None:
        # The reason of a cancel is plain text in the store.
        value = Raw(_write(payload.decode()) if kind is Kind.CANCEL else payload)
    return _Record(
        record.seq, word(kind), record.key, record.digest, _rfc3339(record.at_ms), record.at_ms, taken, value
    )


def _rfc3339(ms: int) -> str:
    when = datetime.fromtimestamp(ms // 1000, tz=UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def read_journal(data: bytes, where: str) -> Journal:
    """Read what `write_journal` wrote. `where` names it in errors. Raises NotDecodable."""
    try:
        head = _read_head(data)
    except msgspec.DecodeError as error:
        raise NotDecodable(where, f"this is not JSON of one object: {error}") from error
    if head.format != FORMAT:
        raise NotDecodable(
            where,
            f"this is no exported journal: its 'format' is {head.format!r}, and not {FORMAT!r}",
            hint="`perdure export RUN -o FILE` writes one.",
        )
    if head.version > VERSION:
        raise NotDecodable(
            where,
            f"it is of version {head.version} of the form, and this release reads up to {VERSION}",
            hint="Read it with the release that wrote it, or a later one.",
        )
    try:
        return _journal(_read(data))
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise NotDecodable(where, f"it does not keep to the form: {error}") from error


def _journal(file: _File) -> Journal:
    run = file.run
    output = run.result if run.result is not UNSET else run.failure
    row = RunRow(
        number=run.number,
        id=run.id,
        generation=run.generation,
        workflow=run.workflow,
        status=Status[run.status.upper()],
        input=bytes(run.input),
        output=None if output is UNSET else bytes(output),
        seed=bytes.fromhex(run.seed),
        wake_at_ms=None,
        crashes=0,
        deadline_ms=run.deadline_ms,
        parent=None,
        parent_key="",
        on_parent_close="",
        created_at_ms=run.created_at_ms,
        ended_at_ms=run.ended_at_ms,
        python=run.python,
    )
    records = [_read_record(record, place, run.number) for place, record in enumerate(file.records)]
    taken = frozenset(record.seq for record in file.records if record.redacted)
    return Journal(row, records, run.tags, run.parent, file.children, file.redacted, taken)


def _read_record(record: _Record, place: int, run: int) -> Record:
    if record.seq != place:
        raise ValueError(f"record {place} has seq {record.seq}: the records must be whole and in their order")
    kind = Kind[record.kind.upper()]
    payload: bytes | None = None
    if record.value is not UNSET:
        payload = bytes(record.value)
        if kind is Kind.CANCEL:
            payload = _text(payload).encode()
    return Record(record.seq, kind, record.key, record.digest, record.at_ms, payload, run)


def _text(data: bytes) -> str:
    text: Any = msgspec.json.decode(data)
    if not isinstance(text, str):
        raise ValueError("the value of a cancel is its reason, a text")
    return text
