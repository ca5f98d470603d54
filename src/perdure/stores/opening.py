"""The only file that picks a store: which URL means which."""

from __future__ import annotations

from ..errors import StoreUnavailable
from .base import Store

DEFAULT_URL = "sqlite:///perdure.db"


def open_store(url: str) -> Store:
    """Open, and if need be create or migrate, the store that `url` names.

    `sqlite:///shop.db` is a file in the working directory, `sqlite:////var/shop.db`
    one by its full path. Raises StoreUnavailable, StoreNotOurs or StoreVersionError.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from .sqlite import SqliteStore

        return SqliteStore(url)
    raise StoreUnavailable(
        f"{url!r} names no store that this release has.",
        hint="Use sqlite:///file.db (three slashes: a relative path; four: a full one).",
    )
