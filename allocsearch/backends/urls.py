"""The storage's URL: its parts, and how it is shown without its secrets."""

from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from allocsearch.core.errors import InputError

_SECRET_KEYS: Final = ("password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "api_key", "odbc_connect")
_HIDDEN: Final = "***"


def parsed_url(url: str) -> URL:
    """`url` in its parts.

    Raises:
        InputError: where it is none, or names a database that dies with the process.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # their texts may hold a part of the password
        raise InputError("the storage must be a SQLAlchemy URL such as sqlite:///studies.db, but it cannot be parsed") from None
    if is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        raise InputError(
            f"the storage must outlive the process, but {shown_url(url)} is in memory: name a file, as in sqlite:///studies.db"
        )
    return parsed


def shown_url(url: str) -> str:
    """`url` fit to be shown: without its password, wherever it stands in it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return "the storage URL"
    hidden = parsed.update_query_dict(dict.fromkeys(_secrets_of(parsed), _HIDDEN))
    return hidden.render_as_string(hide_password=True).replace("=%2A%2A%2A", f"={_HIDDEN}")


def holds_secret(url: URL) -> bool:
    """Whether `url` must not stand where others can read it."""
    return bool(url.password) or bool(_secrets_of(url))


def is_sqlite(url: URL) -> bool:
    """Whether the database is a file of this machine."""
    return url.get_backend_name() == "sqlite"


def with_driver(url: URL) -> URL:
    """`url` as it is connected to: a plain `postgresql://` means psycopg 3, which the `postgres` extra installs."""
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def full_url(url: URL) -> str:
    """`url` to connect with, written out with its password."""
    return with_driver(url).render_as_string(hide_password=False)


def _secrets_of(url: URL) -> list[str]:
    """Keys of the query whose values are secrets. Drivers take `password` there, too; libpq also `sslpassword`, and ODBC all in one."""
    return [key for key in url.query if any(secret in key.lower() for secret in _SECRET_KEYS)]
