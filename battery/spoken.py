"""What a client says to a PostgreSQL server, put together into messages: for who cuts a way at one."""

from __future__ import annotations

from typing import Final

SYNC: Final = b"S\0\0\0\4"
"""What ends a message; a query of the simple kind is one by itself."""
_QUERY: Final = b"Q"
# BEGIN names COMMITTED too. A transaction that is one message has no COMMIT, and its fence says so.
_ENDS_OF_TRANSACTIONS: Final = b"COMMIT\0", b"fence_or_fail"


class Spoken:
    """One direction of a connection: its last message, as far as it came."""

    def __init__(self) -> None:
        self.message = b""

    def add(self, data: bytes) -> None:
        """The next piece came."""
        self.message = data if self.is_whole or data.startswith(_QUERY) else self.message + data

    @property
    def is_whole(self) -> bool:
        return self.message.endswith(SYNC) or self.message.startswith(_QUERY)

    @property
    def commits(self) -> bool:
        """Whether the message is whole, and a transaction ends with it."""
        return self.is_whole and any(end in self.message for end in _ENDS_OF_TRANSACTIONS)
