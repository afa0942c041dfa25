"""Whether a storage can be reached, read and written, and by whom."""

import uuid
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import sqlalchemy
from sqlalchemy.engine import URL, Connection

from allocsearch.backends.schema import engine_at, schemas_of
from allocsearch.backends.storage import explained, storage_url
from allocsearch.backends.urls import holds_secret, is_sqlite, parsed_url, shown_url
from allocsearch.core.errors import InputError
from allocsearch.core.findings import Finding

_REACH: Final = "check the host, the role and its rights; the URL may stand in ALLOCSEARCH_STORAGE"
_HIDE: Final = "give the URL in ALLOCSEARCH_STORAGE, or in a file that ALLOCSEARCH_STORAGE_FILE names"
_WRITE: Final = "grant the role INSERT, UPDATE and DELETE on the tables, and USAGE on their sequences"


def database(url: str | None) -> Iterator[Finding]:
    """What there is to say of the storage at `url` (None: that of the environment); a row is written and rolled back, nothing else."""
    given, url = url, storage_url(url)
    try:
        if given is not None and holds_secret(parsed_url(given)):
            yield Finding("database", "warn", "the URL's password stands in the command line, where `ps` shows it", _HIDE)
        schemas = schemas_of(url)
        yield Finding("database", "ok", f"{shown_url(url)} can be read")
        yield from (schema.finding for schema in schemas)
        if schemas.optuna.state == "current":
            yield _writable(url)
        if not is_sqlite(parsed_url(url)):
            yield from _access(url)
    except InputError as error:
        yield Finding("database", "fail", str(error), _REACH)


def _writable(url: str) -> Finding:
    try:
        with explained(url), engine_at(url) as engine, engine.connect() as connection:
            row = {"name": f"doctor-{uuid.uuid4()}"}
            connection.execute(sqlalchemy.text("INSERT INTO studies (study_name) VALUES (:name)"), row)
            connection.rollback()
    except InputError as error:
        return Finding("database", "fail", str(error), _WRITE)
    return Finding("database", "ok", "it can be written")


def _access(url: str) -> Iterator[Finding]:
    with explained(url), engine_at(url) as engine, engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            yield role(connection)
            yield encryption(parsed_url(url), connection)


def role(connection: Connection) -> Finding:
    """Whether the driver's role may do more than a driver does."""
    query = "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
    name, mighty = connection.execute(sqlalchemy.text(query)).one()
    if mighty:
        return Finding(
            "role", "warn", f"{name!r} may do more than a driver needs", "use a role with rights on the tables only: docs/security.md"
        )
    return Finding("role", "ok", f"{name!r} is neither superuser nor may it make roles or databases")


def encryption(url: URL, connection: Connection) -> Finding:
    """Whether passwords and studies travel in the clear to another machine."""
    query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    if connection.execute(sqlalchemy.text(query)).scalar():
        return Finding("encryption", "ok", "the connection is encrypted")
    if stays_here(str(url.query.get("host", "")) or url.host or ""):
        return Finding("encryption", "ok", "none; the connection does not leave this machine")
    return Finding("encryption", "warn", "the connection to another machine is not encrypted", "add ?sslmode=verify-full to the URL")


def stays_here(host: str) -> bool:
    """Whether a connection to `host` (a name, an address, or the folder of a Unix socket) stays on this machine."""
    if host in {"", "localhost"} or Path(host).is_absolute():
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name, which may mean another machine tomorrow
        return False
