"""A failing schedule, written down for a person: what is wrong, in which order, and how to see it again."""

from __future__ import annotations

from ...codec.failures import describe_failure
from ...core.records import Kind, Record
from .plan import seconds
from .play import Played

_LINES_MAX = 40


def describe(played: Played, *, found_in: int, first_length: int, confirmed: bool) -> str:
    """The message of a failing test."""
    failure = played.failure
    assert failure is not None
    plan = played.world.plan
    needed = len(played.path.needed)
    parts = [f"{failure.text}\n\nSo it comes about in {plan.call.describe()}:\n"]
    parts += _choices(played, needed)
    if found_in:
        was = f", shortened from {first_length} choices to {needed}" if first_length > needed else ""
        parts.append(f"\nFound in schedule {found_in:,}{was}. To see it again, give `explore` also:\n")
        parts.append(f"    schedule={', '.join(played.path.needed)!r}")
    if not confirmed:
        parts.append(
            "\nPlayed once more, this schedule did not fail: something is carried over from one schedule "
            "to the next, or is left to chance. Make all that steps touch anew in `setup`."
        )
    parts.append("\nThe journal:\n")
    parts += _cut([_line(record, several=len(played.world.runs) > 1) for record in played.world.journal])
    return "\n".join(parts)


def _choices(played: Played, needed: int) -> list[str]:
    taken = played.path.taken
    width = max((len(one.name) for one in taken), default=0)
    lines = [f"    {one.name.ljust(width)}    {one.what}".rstrip() for one in taken]
    head, tail = lines[:needed], lines[needed:]
    if not head:
        head = ["  in the default order (the oldest first):"]
    elif tail:
        head.append("  and on in the default order:")
    return [*head, *_cut(tail)]


def _cut(lines: list[str]) -> list[str]:
    if len(lines) <= _LINES_MAX:
        return lines
    half = _LINES_MAX // 2
    return [*lines[:half], f"    … {len(lines) - 2 * half:,} more …", *lines[-half:]]


def _line(record: Record, *, several: bool) -> str:
    payload = record.payload or b""
    if record.kind in (Kind.STEP_FAILED, Kind.CHILD_FAILED):
        said = describe_failure(payload)
    else:
        said = payload.decode(errors="replace")
    run = f"run {record.run}  " if several else ""
    kind = Kind(record.kind).name.lower().replace("_", " ")
    said = said if len(said) <= 60 else f"{said[:59]}…"
    return f"    {run}{record.seq:>3}  {seconds(record.at_ms):>9}  {kind:<13} {record.key}  {said}".rstrip()
