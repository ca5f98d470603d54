"""Taking values out of a journal, so that it can leave the house.

A pattern is a name (`charge`, `approval`, `pay*`): of a step, child workflow,
signal or update, or `input`, `result`, `tags`; or a JSON path (`$.card.number`,
`$..email`, `$.items[*].price`), which holds for every value; or both, for a part
of some values (`charge:$.card`).

The law: what is taken out is replaced by a marker of the same JSON type, and text
that reads as a date, a UUID, a number by one that does so too. So the value still
fits its type, and the journal replays where the code does not branch on it. The
names of fields, the lengths of lists, the types of errors stay. Of an event that a run
waited for, what says where it stands and of what type it is stays, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from ..core.records import Kind, Record, Status
from ..errors import PerdureError
from ..stores.correlation import event_as_text, event_from_text, read_signal, signal_without
from .form import Journal

ALL = "*"
"""The pattern that takes every value out."""
MARK = "REDACTED"
"""What stands for text. It is base64 too, so that it can stand for bytes."""

_CALLS = (Kind.STEP, Kind.STEP_FAILED, Kind.CHILD, Kind.CHILD_FAILED)
_FAILED = (Kind.STEP_FAILED, Kind.CHILD_FAILED)
_TOKEN = re.compile(
    r"(?P<deep>\.\.)?\.?(?:(?P<name>[\w$-]+|\*)|\[(?P<index>\d+|\*)\]|\[(?P<quoted>\"[^\"]*\")\])"
)
_UUID = "00000000-0000-4000-8000-000000000000"
_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(?:Z|[+-]\d\d:?\d\d)"), "2000-01-01T00:00:00Z"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*"), "2000-01-01T00:00:00"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "2000-01-01"),
    (re.compile(r"\d\d:\d\d(?::\d\d.*)?"), "00:00:00"),
    (re.compile(r"-?P(?=[\dT])[\d.TYMWDHS]+"), "PT0S"),
    (re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), _UUID),
    (re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"), "0"),
)  # fmt: skip


class BadPattern(PerdureError):
    """A pattern for redaction that cannot be read."""

    code = "bad_pattern"


class _Part(msgspec.Struct, frozen=True):
    deep: bool
    at: str | int
    """A field's name, a place in a list, or `*`."""


class _Pattern(msgspec.Struct, frozen=True):
    name: str
    path: tuple[_Part, ...]


def redact(journal: Journal, patterns: Sequence[str]) -> Journal:
    """The journal without the values that the patterns name. Raises BadPattern."""
    read = [_read_pattern(text) for text in patterns]
    if not read:
        return journal
    records: list[Record] = []
    taken = set(journal.taken)
    for record in journal.records:
        found = _redact_record(record, read)
        records.append(found)
        if found is not record:
            taken.add(record.seq)
    row = journal.run
    output = row.output
    if output is not None:
        as_failure = row.status != Status.COMPLETED
        output = _redact_value(output, "result", read, failure=as_failure)
    row = row._replace(input=_redact_value(row.input, "input", read), output=output)
    tags = journal.tags
    if any(fnmatchcase("tags", pattern.name) and not pattern.path for pattern in read):
        tags = dict.fromkeys(tags, MARK)
    marks = [*journal.redacted, *(text for text in patterns if text not in journal.redacted)]
    return replace(journal, run=row, records=records, tags=tags, redacted=marks, taken=frozenset(taken))


def _redact_record(record: Record, patterns: Sequence[_Pattern]) -> Record:
    """The same record where no pattern holds."""
    payload = record.payload
    kind = Kind(record.kind)
    if payload is None or kind is Kind.CHILD_STARTED:
        return record  # the child's id: the journal tells it elsewhere too
    key = record.key
    if kind is Kind.CANCEL:
        named = any(fnmatchcase("cancel", pattern.name) and not pattern.path for pattern in patterns)
        found = MARK.encode() if named else payload
    elif kind is Kind.SIGNAL and (wait := read_signal(record.key)) is not None:
        of, where = wait
        found = _redact_event(payload, of, patterns)
        where_as_json = msgspec.json.encode(where)
        if (values := _redact_value(where_as_json, of, patterns)) is not where_as_json:
            key = signal_without(of, msgspec.json.decode(values))
    else:
        name = record.key
        if kind in _CALLS:
            name = record.key.removesuffix("/end").split("/", 2)[-1]
        elif kind is Kind.UPDATE:
            name = record.key.rpartition("/")[0]
        if kind is Kind.STEP and name == "next_event":
            found = _redact_found(payload, name, patterns)
        else:
            found = _redact_value(payload, name, patterns, failure=kind in _FAILED)
    return record if found is payload and key == record.key else record._replace(key=key, payload=found)


def _redact_found(data: bytes, name: str, patterns: Sequence[_Pattern]) -> bytes:
    """Of what a run found when it asked for an event: that is text, with the event in it."""
    try:
        text, is_partial = msgspec.json.decode(data, type=tuple[str | None, bool])
        event = None if text is None else _redact_event(text.encode(), name, patterns)
    except msgspec.DecodeError:
        return _redact_value(data, name, patterns)  # a step of this name that is the program's own
    same = event is None or event == (text or "").encode()
    return data if same else msgspec.json.encode((event.decode() if event else None, is_partial))


def _redact_event(data: bytes, name: str, patterns: Sequence[_Pattern]) -> bytes:
    """Of an event: its data, and what else is its producer's own. Its type and place stay."""
    row = event_from_text(data)
    payload = _redact_value(row.payload, name, patterns)
    if payload is row.payload:
        return data
    source, key = (MARK if row.source else ""), (MARK if row.key else "")
    return event_as_text(row._replace(id=MARK, source=source, key=key, trace="", payload=payload)).encode()


def _redact_value(data: bytes, name: str, patterns: Sequence[_Pattern], *, failure: bool = False) -> bytes:
    """The same bytes where no pattern holds."""
    fitting = [pattern for pattern in patterns if fnmatchcase(name, pattern.name)]
    if not fitting:
        return data
    value = msgspec.json.decode(data)
    found = value
    for pattern in fitting:
        blank = _blank_failure if failure and not pattern.path else _blank
        found = _apply(found, pattern.path, blank)
    return data if found == value else msgspec.json.encode(found)


def _apply(value: Any, path: tuple[_Part, ...], blank: Callable[[Any], Any]) -> Any:
    if not path:
        return blank(value)
    part, rest = path[0], path[1:]
    found = value
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        found = {
            key: _apply(item, rest, blank) if part.at in (key, ALL) else item for key, item in fields.items()
        }
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        found = [
            _apply(item, rest, blank) if part.at in (place, ALL) else item for place, item in enumerate(items)
        ]
    if not part.deep:
        return found
    return _inside(found, lambda item: _apply(item, path, blank))


def _inside(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: change(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [change(item) for item in cast("list[Any]", value)]
    return value


# -- markers ---------------------------------------------------------------------------------------


def _blank(value: Any) -> Any:
    """A marker of the same type; of an object and a list, each part."""
    if isinstance(value, str):
        return next((mark for form, mark in _TEXTS if form.fullmatch(value)), MARK)
    if isinstance(value, (bool, int, float)):
        return type(value)(0)
    return _inside(value, _blank)


def _blank_failure(value: Any) -> Any:
    """A failure without what it says: its type, and those of what led to it, stay."""
    if not isinstance(value, dict):
        return _blank(value)
    failure = cast("dict[str, Any]", value)
    found: dict[str, Any] = {}
    for name, part in failure.items():
        if name in ("type", "suppress_context"):
            found[name] = part
        elif name in ("cause", "context"):
            found[name] = _blank_failure(part)
        elif name == "members":
            found[name] = _inside(part, _blank_failure)
        elif name == "step" and isinstance(part, dict):
            found[name] = {**_blank(part), "step": cast("dict[str, Any]", part).get("step")}
        else:
            found[name] = _blank(part)
    return found


# -- patterns --------------------------------------------------------------------------------------


def _read_pattern(text: str) -> _Pattern:
    name, colon, path = text.partition(":$")
    if text.startswith("$"):
        name, colon, path = ALL, ":", text[1:]
    if not name:
        raise BadPattern("A pattern for redaction is empty.", hint=_FORM)
    return _Pattern(name, tuple(_read_path(path, text)) if colon else ())


_FORM = "Write a name (charge), a path ($.card.number, $..email), or both (charge:$.card)."


def _read_path(path: str, text: str) -> Iterator[_Part]:
    at = 0
    while at < len(path):
        token = _TOKEN.match(path, at)
        if token is None:
            raise BadPattern(f"{text!r} cannot be read at {path[at:]!r}.", hint=_FORM)
        at = token.end()
        index, quoted = token["index"], token["quoted"]
        key: str | int = token["name"] or ALL
        if quoted is not None:
            key = quoted[1:-1]
        elif index is not None and index != ALL:
            key = int(index)
        yield _Part(token["deep"] is not None, key)
