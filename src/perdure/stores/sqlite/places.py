"""An event's row in the file: its position there, and what is wrong with one that the disk has changed."""

from __future__ import annotations

from typing import Final

import apsw

from ...core.events import EventRow
from ...errors import StoreCorrupt
from . import blobs
from .checksums import checksum
from .connection import Row

PLACES: Final = 1 << 40
"""A stream's number, times this, and a place are a position in the file; see `next_stream`."""
_PAYLOAD: Final = 9


def wrong_event(row: Row, base: int, *, url: str) -> StoreCorrupt | None:
    """What is wrong with the row of an event, of the stream that begins at `base`; None when nothing is."""
    *columns, crc = row
    if crc == checksum(columns):
        return None
    number, place = base // PLACES, row[0] - base
    return StoreCorrupt(
        f"In store '{url}' event {place} of stream number {number} is damaged: it does not fit its checksum.",
        hint="Restore a backup of the file. `perdure doctor` names all that is damaged.",
    )


def read_event(connection: apsw.Connection, row: Row, base: int, *, url: str) -> EventRow:
    """An event from its row; raises StoreCorrupt for one that the disk has changed."""
    wrong = wrong_event(row, base, url=url)
    if wrong is not None:
        raise wrong
    columns = row[:-1]
    whole = blobs.whole(connection, columns, (_PAYLOAD,), url=url)
    return EventRow(whole[0] - base, *whole[1 : _PAYLOAD + 1])


def read_or_name(connection: apsw.Connection, row: Row, base: int, *, url: str) -> EventRow:
    """The same; one that is damaged is named, and does not hide the others."""
    try:
        return read_event(connection, row, base, url=url)
    except StoreCorrupt as damage:
        return EventRow(row[0] - base, "", "", "", 0, "", 0, 0, "", b"", damage.what)
