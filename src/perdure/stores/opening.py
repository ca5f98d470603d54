"""The only file that picks a store: which URL means which."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import StoreUnavailable
from .base import Store
from .moves import refuse_closed_store

DEFAULT_URL = "sqlite:///perdure.db"


_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@]*@|(?<=[?&])((?:ssl)?password)=[^&]*")


def without_secret(url: str) -> str:
    """The URL as it may be shown: without a password."""
    return _PASSWORD.sub(lambda found: f"{found[1]}@" if found[1] is not None else f"{found[2]}=…", url)


def open_store(url: str, *, create: bool = True, only_look: bool = False) -> Store:
    """Open, and if need be create or migrate, the store that `url` names.

    `sqlite:///shop.db` is a file in the working directory, `sqlite:////var/shop.db`
    one by its full path; `postgresql://user:password@host/database` is in a PostgreSQL
    server, where `?schema=name` names another schema than `perdure`. Raises
    StoreUnavailable, StoreNotOurs or StoreVersionError; StoreUnavailable, too, when
    there is none and `create` is false. `only_look`: the store stays as it is, and one
    that would have to be migrated is a StoreVersionError.

    Raises StoreMoved for a store that a move has closed, also to who only looks: what it
    says of its runs is true no more.
    """
    store = open_closed_store(url, create=create, only_look=only_look)
    try:
        refuse_closed_store(store)
    except BaseException:
        store.close()
        raise
    return store


def open_closed_store(url: str, *, create: bool = True, only_look: bool = False) -> Store:
    """The same, also if a move has closed the store: for those who move."""
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from .sqlite import SqliteStore, find_place

        place = find_place(url)
        if (only_look or not create) and not _is_there(place.path):
            raise StoreUnavailable(
                f"There is no store at '{place.url}', and this only looks at what is there.",
                hint="`perdure run` and `perdure start` make one; --store or PERDURE_STORE names another.",
            )
        return SqliteStore(url, only_look=only_look)
    if scheme in ("postgresql", "postgres"):
        try:
            from .postgres import PostgresStore
        except ImportError as error:
            raise StoreUnavailable(
                f"A PostgreSQL store needs psycopg, which cannot be imported: {error}.",
                hint="Run: pip install 'perdure[postgres]'",
            ) from error
        return PostgresStore(url, create=create, only_look=only_look)
    if scheme == "temporal":
        raise StoreUnavailable(
            "A Temporal cluster is no store: it keeps histories of its own, and no journals.",
            hint="To hold its runs against other code there is Temporal's own Replayer.",
        )
    raise StoreUnavailable(
        f"{scheme!r} names no store that this release has.",
        hint="Use sqlite:///file.db (three slashes: a relative path; four: a full one), or "
        "postgresql://user:password@host/database.",
    )


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # there is no right to look: whoever opens it says so
        return True
