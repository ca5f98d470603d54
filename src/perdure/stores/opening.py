"""The only file that picks a store: which URL means which."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreUnavailable
from .base import Store

DEFAULT_URL = "sqlite:///perdure.db"


def open_store(url: str, *, create: bool = True, only_look: bool = False) -> Store:
    """Open, and if need be create or migrate, the store that `url` names.

    `sqlite:///shop.db` is a file in the working directory, `sqlite:////var/shop.db`
    one by its full path. Raises StoreUnavailable, StoreNotOurs or StoreVersionError;
    StoreUnavailable, too, when there is none and `create` is false. `only_look`: the
    file stays as it is, and one that would have to be migrated is a StoreVersionError.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from .sqlite import SqliteStore, find_place

        place = find_place(url)
        if (only_look or not create) and not Path(place.path).exists():
            raise StoreUnavailable(
                f"There is no store at '{place.url}', and this only looks at what is there.",
                hint="`perdure run` and `perdure start` make one; --store or PERDURE_STORE names another.",
            )
        return SqliteStore(url, only_look=only_look)
    raise StoreUnavailable(
        f"{url!r} names no store that this release has.",
        hint="Use sqlite:///file.db (three slashes: a relative path; four: a full one).",
    )
