"""Positions as people see them: 13 digits in Crockford's base 32, in the order of the places."""

from __future__ import annotations

from ..errors import PositionGone, StreamError

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 13


def position_text(place: int) -> str:
    """The position of a place."""
    return "".join(_DIGITS[place >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))


def place_at(position: str) -> int:
    """The place of a position. Raises StreamError for a text that is none."""
    digits = [_DIGITS.find(digit) for digit in position]
    if len(digits) != _LENGTH or min(digits) < 0 or digits[0] > 7:
        raise StreamError(
            f"{position!r} is no position of a stream: it has {_LENGTH} letters and digits.",
            hint="Take one from `event.position`, `appended.position` or `perdure lag`.",
        )
    place = 0
    for digit in digits:
        place = place << 5 | digit
    return place


def gone_below(subscription: str, cursor: int, gone: int, *, stream: str = "") -> PositionGone:
    """What to say of one (`stream/handler`) that stands at `cursor`, where all up to `gone` was let go.

    `stream`: the one that has let go, when it is the second one of a join.
    """
    position, first = position_text(cursor + 1), position_text(gone + 1)
    where, who = (f" of stream {stream!r}", "it") if stream else ("", "its stream")
    return PositionGone(
        f"{subscription} goes on at position {position}{where}, and the first event that {who} still keeps "
        f"is at {first}: what lies between was let go, unhandled. Nothing is delivered to it meanwhile.",
        position=position,
        first=first,
        hint=f"To go on with the first that is kept: perdure seek {subscription} --to earliest --yes",
    )
