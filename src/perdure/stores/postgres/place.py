"""Where a store is: a URL read into what libpq is told, the schema, and what may be shown.

The password goes to libpq and nowhere else: no message and no `url` has it. So a URL
that cannot be read is not shown either, as nobody knows which part of it is what.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ...errors import StoreError

DEFAULT_SCHEMA: Final = "perdure"
_SCHEMES: Final = ("postgresql://", "postgres://")
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")
_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")

# A server that is gone without a word is noticed within half a minute; the system's own limits are hours.
_UNLESS_GIVEN: Final = {
    "application_name": "perdure",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


class Place(NamedTuple):
    """A store in a database."""

    parameters: dict[str, str]
    """What libpq is told."""
    schema: str
    url: str
    """Without any password."""

    def space(self, purpose: str) -> int:
        """The first number of an advisory lock: stores of one database must not have each other's locks."""
        return zlib.crc32(f"{purpose} of {self.schema}".encode()) - 2**31

    @property
    def channel(self) -> str:
        """What LISTEN and NOTIFY name."""
        return f"perdure {self.schema}"


def find_place(url: str) -> Place:
    """Read `postgresql://user:password@host:port/database?schema=name&…`; all but `schema` is libpq's.

    Raises StoreError for what is none.
    """
    scheme = next((scheme for scheme in _SCHEMES if url.startswith(scheme)), None)
    if scheme is None:
        raise _unreadable("it does not begin with postgresql://")
    address, _, query = url.partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    schema = settings.pop("schema", DEFAULT_SCHEMA)
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise StoreError(
            f"{schema!r} cannot be the schema of a store.",
            hint="Use small letters, digits and underscores, at most 48; it may not begin with pg_.",
        )
    given = urlencode(settings, quote_via=quote)
    try:
        read = conninfo_to_dict(f"{address}?{given}" if given else address)
    except psycopg.Error:
        # Nor is libpq's message shown: it may quote what it took for the port.
        raise _unreadable("libpq does not understand it") from None
    parameters = {**_UNLESS_GIVEN, **{name: str(value) for name, value in read.items()}}
    port = parameters.get("port", "")
    if "@" in parameters.get("host", "") + parameters.get("dbname", "") or port.strip("0123456789,"):
        raise _unreadable("host, port or database hold what is perhaps a piece of the password")
    parameters["client_encoding"] = "utf8"
    return Place(parameters, schema, _shown(address, settings, schema, scheme=scheme))


def _shown(address: str, settings: dict[str, str], schema: str, *, scheme: str) -> str:
    login, at, rest = address.removeprefix(scheme).rpartition("@")
    user = login.partition(":")[0]
    kept = {name: value for name, value in settings.items() if name not in _SECRETS}
    if schema != DEFAULT_SCHEMA:
        kept["schema"] = schema
    query = urlencode(kept, quote_via=quote, safe="/")
    return f"postgresql://{user}{at}{rest}{'?' if query else ''}{query}"


def _unreadable(why: str) -> StoreError:
    return StoreError(
        f"The URL of a PostgreSQL store cannot be read: {why}. It is not shown, as it may hold a password.",
        hint="Write postgresql://user:password@host:5432/database?schema=perdure, with %40, %3A, %2F and "
        "%3F for any @, :, / and ? in the password.",
    )
