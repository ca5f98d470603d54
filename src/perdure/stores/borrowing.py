"""What the stores share of borrowing: writing on a connection of the user's, in the user's own transaction.

The law: nothing is begun, committed or rolled back on it, and a connection that is not to the
store, or has no transaction open, is refused before anything is written. What the
driver itself raises there goes to the user as it is: the transaction is theirs.
"""

from __future__ import annotations

from typing import Any

from ..errors import StoreError


def is_of(connection: object, package: str) -> bool:
    """Whether a connection's class, or one that it derives from, is of that package; nothing is imported."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(connection).__mro__)


def name_of(connection: object) -> str:
    """What a connection is, for a message: `sqlite3.Connection`."""
    kind = type(connection)
    return f"{kind.__module__}.{kind.__qualname__}"


def unfit(connection: Any, url: str, *, wanted: str) -> StoreError:
    """The error for something that nothing can be written on."""
    return StoreError(
        f"Store '{url}' cannot be written to on a {name_of(connection)}. Nothing was written.",
        hint=f"Give connection= {wanted}.",
    )


def no_transaction(url: str, *, hint: str) -> StoreError:
    """The error for a connection on which each statement commits by itself."""
    return StoreError(
        f"The connection has no transaction open, so what is written on it to store '{url}' would be "
        "there at once, whatever becomes of what you write besides. Nothing was written.",
        hint=hint,
    )


def elsewhere(url: str, where: str) -> StoreError:
    """The error for a connection to something else than the store."""
    return StoreError(
        f"The connection is to {where}, and not to store '{url}'. Nothing was written.",
        hint="Give a connection to the database that the store is in: runs and events commit there, "
        "together with your own rows.",
    )
