"""What several commands take, said once."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from .endings import BadInput

DEFAULT_STORE = "sqlite:///perdure.db"


def _store_url(text: str) -> str:
    return text if "://" in text or not text else f"sqlite:///{text}"


StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="PERDURE_STORE",
        metavar="URL",
        callback=_store_url,
        help="The store: sqlite:///file.db, a file's path, or postgresql://…",
    ),
]
FromStore = Annotated[
    str,
    typer.Argument(
        metavar="FROM", callback=_store_url, help="The store that the runs are in: a URL, or a path."
    ),
]
ToStore = Annotated[
    str,
    typer.Argument(metavar="TO", callback=_store_url, help="The store to move them to; made if need be."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to stdout, for programs.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

Target = Annotated[
    str,
    typer.Argument(metavar="MODULE:WORKFLOW", help="Where it is: shop:checkout, or path/shop.py:checkout."),
]
RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]

InputOption = Annotated[
    str,
    typer.Option(
        "--input",
        "-i",
        metavar="JSON",
        help="The input: its one argument, or an object of names, or an array. @FILE reads a file, - stdin.",
    ),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="The run's id, which is started once; else random."),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="KEY=VALUE", help="For listing; as often as you like."),
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", metavar="SECONDS", help="Cancel the run when it takes longer.")
]


class ReuseChoice(Enum):
    """When the id of a run that has ended may be taken again."""

    NEVER = "never"
    IF_FAILED = "if_failed"
    ALWAYS = "always"


ReuseOption = Annotated[
    ReuseChoice,
    typer.Option("--reuse", help="Whether an id whose run has ended may be taken again."),
]

PLACE_HELP = "earliest, latest, a position, or a time: 30min, 2h, 7d ago, or a date."
_POSITION = re.compile("[0-7][0-9a-hjkmnp-tv-z]{12}")
_AGO = re.compile(r"(\d+)\s*(s|min|m|h|d|w)")
_UNITS = {"s": "seconds", "min": "minutes", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_text(text: str) -> bytes:
    """What an option says: itself, `@file`, or `-` for stdin. Raises BadInput."""
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise BadInput(f"The input file {text[1:]!r} cannot be read: {error.strerror}.") from error


def read_json(text: str) -> Any:
    """A JSON value from the command line. Raises BadInput."""
    data = read_text(text)
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise BadInput(
            f"This is not JSON: {data[:80].decode(errors='replace')} ({error}).",
            hint="Text needs its own quotes: '\"ann\"'. No value at all is null.",
        ) from error


def read_tags(pairs: list[str] | None) -> dict[str, str]:
    """`key=value` pairs. Raises BadInput."""
    tags: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--tag {pair!r} is no pair.", hint="Write --tag key=value.")
        tags[key] = value
    return tags


def read_time(text: str | None, *, now_ms: int) -> datetime | None:
    """`2h` ago, or a date and time in ISO form, in UTC unless it says otherwise. Raises BadInput."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    if ago:
        span = timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromtimestamp(now_ms / 1000, tz=UTC) - span
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is no time.", hint="Write 30min, 2h, 7d, or 2026-07-01T12:00.") from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def read_place(text: str, *, now_ms: int) -> str | datetime:
    """A place in a stream, as `Subscription.seek` takes one; see `PLACE_HELP`. Raises BadInput."""
    is_word = text in ("", "earliest", "latest") or _POSITION.fullmatch(text) is not None
    place = text if is_word else read_time(text, now_ms=now_ms)
    assert place is not None, "there is a text"
    return place
