"""Opening the database that remembers studies: SQLite in the home folder by default, any SQLAlchemy URL otherwise."""

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, NoSuchModuleError, SQLAlchemyError

from allocsearch.backends.commands import command
from allocsearch.backends.optuna_quiet import experimental
from allocsearch.backends.urls import full_url, is_sqlite, parsed_url, shown_url, with_driver
from allocsearch.core.errors import InputError, line_of
from allocsearch.home import home

_SQLITE_TIMEOUT_SECONDS: Final = 60
_LIBPQ: Final = ("postgresql+psycopg", "postgresql+psycopg2")
_VANISHED: Final = {
    "connect_timeout": 10,  # seconds, for each of several hosts
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds, for what was sent and never acknowledged
}
_OPEN_ATTEMPTS: Final = 10
_OPEN_PAUSE_SECONDS: Final = 0.2


def storage_url(url: str | None) -> str:
    """The URL to use: `url`, else what the environment names, else the SQLite file in the home folder.

    `ALLOCSEARCH_STORAGE` holds a URL and `ALLOCSEARCH_STORAGE_FILE` the path of a file that does, so that a password needs to stand
    neither in a command line nor in an environment.

    Raises:
        InputError: where that file cannot be read or is empty.
    """
    return url or os.environ.get("ALLOCSEARCH_STORAGE") or _url_in_file() or f"sqlite:///{home() / 'studies.db'}"


def storage_in_environment() -> bool:
    """Whether the environment names a storage."""
    return any(os.environ.get(name) for name in ("ALLOCSEARCH_STORAGE", "ALLOCSEARCH_STORAGE_FILE"))


def _url_in_file() -> str | None:
    file = os.environ.get("ALLOCSEARCH_STORAGE_FILE")
    if not file:
        return None
    try:
        url = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"the file that ALLOCSEARCH_STORAGE_FILE names must be readable, but {file!r} is not: {reason}") from None
    if not url:
        raise InputError(f"the file that ALLOCSEARCH_STORAGE_FILE names must hold a database URL, but {file!r} is empty")
    return url


def open_storage(url: str | None) -> RDBStorage:
    """The storage at `url`, its tables made if missing.

    Raises:
        InputError: where it cannot be opened; the message never holds a password.
    """
    url = storage_url(url)
    with explained(url):
        parsed = parsed_url(url)
        with experimental():
            storage = _made(full_url(parsed), engine_options(parsed))
        _check_tables(storage, url)
        if is_sqlite(parsed):
            # Write-ahead logging keeps readers (a dashboard, `status`) from ever blocking the driver.
            event.listen(storage.engine, "connect", _use_wal)
            storage.engine.dispose()
            with storage.engine.connect():
                pass
        weakref.finalize(storage, storage.engine.dispose)  # closes pooled connections, which would be closed at random otherwise
        return storage


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns a database's errors into one line without secrets."""
    try:
        yield
    except (NoSuchModuleError, ImportError) as error:
        raise InputError(
            f"the database driver of {shown_url(url)} must be installed, but: {line_of(error)}; "
            "for PostgreSQL: pip install 'allocsearch[postgres]'"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(f"the database {shown_url(url)} must be readable and writable, but: {line_of(_root(error))}") from error


@contextmanager
def written(url: str) -> Iterator[None]:
    """`explained`, for a run under way, which may meet other errors, too: those pass as they are."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(
            f"the database {shown_url(url)} must take what a run writes, but: {line_of(_root(error))}: nothing that was written is lost; "
            "mend that (a full disk, a server that is gone), then resume the study"
        ) from error


def _made(url: str, options: dict[str, Any]) -> RDBStorage:
    """Optuna's storage. Two processes that open a new database at once both make its tables; the later one looks again."""
    for attempt in range(_OPEN_ATTEMPTS):
        try:
            return RDBStorage(url, engine_kwargs=options, skip_compatibility_check=True)
        except DatabaseError as error:
            raced = "already exists" in str(error) or "alembic_version" in str(error)
            if not raced or attempt == _OPEN_ATTEMPTS - 1:
                raise
            time.sleep(_OPEN_PAUSE_SECONDS)
    raise AssertionError("the loop returns or raises")


def engine_options(url: URL) -> dict[str, Any]:
    """What SQLAlchemy's engine is to be made with."""
    if is_sqlite(url):
        return {"connect_args": {"timeout": _SQLITE_TIMEOUT_SECONDS}}
    return {"pool_pre_ping": True, "connect_args": _noticing(url)}


def _noticing(url: URL) -> dict[str, int]:
    """What makes libpq notice within half a minute that a host has vanished; TCP by itself may take hours. What `url` says goes before."""
    if with_driver(url).drivername not in _LIBPQ:
        return {}
    set_elsewhere = {"connect_timeout"} if os.environ.get("PGCONNECT_TIMEOUT") else set()
    return {key: value for key, value in _VANISHED.items() if key not in url.query and key not in set_elsewhere}


def _check_tables(storage: RDBStorage, url: str) -> None:
    """As Optuna itself would, which leaves the connections open where it refuses."""
    found, wanted = storage.get_current_version(), storage.get_head_version()
    if found != wanted:
        storage.engine.dispose()
        raise InputError(
            f"the tables in {shown_url(url)} must fit the installed Optuna, but they are of version {found} and it needs {wanted}: "
            f"see {command('db', 'check', storage=url)}"
        )


def _use_wal(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _root(error: BaseException) -> BaseException:
    """The driver's own error under SQLAlchemy's and Optuna's; theirs quote statements and URLs."""
    seen = error
    while True:
        inner = seen.orig if isinstance(seen, DatabaseError) and seen.orig is not None else seen.__cause__
        if inner is None:
            return seen
        seen = inner
