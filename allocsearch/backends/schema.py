"""The tables in a storage, Optuna's and allocsearch's own: whether they are there, and of the version that the installed ones work with."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from allocsearch.backends import own_tables
from allocsearch.backends.optuna_quiet import experimental
from allocsearch.backends.storage import engine_options, explained, open_storage, storage_url
from allocsearch.backends.urls import full_url, is_sqlite, parsed_url, shown_url
from allocsearch.core.errors import InputError
from allocsearch.core.findings import Finding, Level

State = Literal["missing", "current", "behind", "ahead", "foreign"]

_STAMP: Final = "alembic_version"
_ONE_OF_ITS_TABLES: Final = "studies"
_AS_OWNER: Final = "where its role may not: allocsearch db upgrade, as the owner"
_TEXTS: Final[dict[State, tuple[Level, str, str]]] = {
    "missing": ("ok", "{owner} has no tables yet", f"the first run makes them; {_AS_OWNER}"),
    "current": ("ok", "{owner}'s tables are of version {version}, as needed", ""),
    "behind": ("fail", "{owner}'s tables are of version {version}, but the installed {owner} needs {wanted}", "allocsearch db upgrade"),
    "ahead": (
        "fail",
        "{owner}'s tables are of version {version}, but the installed {owner} knows none after {wanted}",
        "install a newer {owner}",
    ),
    "foreign": ("fail", "there are tables of {owner}'s names that bear no version", "give the studies a database of their own"),
}


@dataclass(frozen=True, slots=True)
class Schema:
    """One owner's tables as they stand: `version` is theirs, `wanted` the installed owner's; empty where there are none."""

    owner: Literal["Optuna", "allocsearch"]
    state: State
    version: str = ""
    wanted: str = ""

    @property
    def finding(self) -> Finding:
        """The same for people."""
        level, found, remedy = _TEXTS[self.state]
        named = {"owner": self.owner, "version": self.version, "wanted": self.wanted}
        return Finding("schema", level, found.format(**named), remedy.format(**named))


class Schemas(NamedTuple):
    """All tables of a storage."""

    optuna: Schema
    own: Schema


def schemas_of(url: str | None) -> Schemas:
    """The tables at `url`; nothing is made or written.

    Raises:
        InputError: where the database cannot be read.
    """
    url = storage_url(url)
    with explained(url):
        parsed = parsed_url(url)
        if is_absent(parsed):
            return Schemas(Schema("Optuna", "missing"), Schema("allocsearch", "missing"))
        with engine_at(url) as engine:
            tables, own = set(sqlalchemy.inspect(engine).get_table_names()), _own(engine)
        if _STAMP not in tables:
            return Schemas(Schema("Optuna", "foreign" if _ONE_OF_ITS_TABLES in tables else "missing"), own)
        with _storage_as_it_is(url) as storage:
            version, wanted, known = storage.get_current_version(), storage.get_head_version(), storage.get_all_versions()
        return Schemas(Schema("Optuna", _state(version, wanted, known), version, wanted), own)


def is_absent(url: URL) -> bool:
    """Whether to connect to `url` would make a file, which a look must not do."""
    if not is_sqlite(url):
        return False
    name = str(url.database)
    return not Path(unquote(urlsplit(name).path) if "uri" in url.query else name).exists()


def upgrade(url: str | None) -> tuple[Schemas, Schemas]:
    """Bring the tables to the installed versions, or make them: what they were, and what they are.

    Raises:
        InputError: where they are somebody else's, or of a version that is not known.
    """
    url = storage_url(url)
    before = schemas_of(url)
    for schema in before:
        if schema.state in {"ahead", "foreign"}:
            raise InputError(f"tables to upgrade must be of a version that is known, but {schema.finding.found}: {schema.finding.remedy}")
    if before.optuna.state == "missing":
        open_storage(url)
    elif before.optuna.state == "behind":
        with explained(url), _storage_as_it_is(url) as storage, _quiet_alembic():
            storage.upgrade()
    if before.own.state != "current":
        with explained(url), engine_at(url) as engine:
            own_tables.upgrade(engine)
    return before, schemas_of(url)


def require_own(engine: sqlalchemy.Engine, url: str) -> None:
    """Our own tables as a driver needs them, made where there are none.

    Raises:
        InputError: where they are of another version, or may not be made.
    """
    found = _own(engine)
    if found.state == "current":
        return
    if found.state != "missing":
        raise InputError(f"the tables in {shown_url(url)} must fit, but {found.finding.found}: {found.finding.remedy}")
    try:
        own_tables.upgrade(engine)
    except DatabaseError as error:
        raise InputError(
            f"a driver needs allocsearch's tables in {shown_url(url)}, but it could not make them: allocsearch db upgrade, as the owner"
        ) from error


def _own(engine: sqlalchemy.Engine) -> Schema:
    version, known = own_tables.version(engine), own_tables.versions()
    return (
        Schema("allocsearch", "missing") if version is None else Schema("allocsearch", _state(version, known[0], known), version, known[0])
    )


def _state(version: str, wanted: str, known: Sequence[str]) -> State:
    return "current" if version == wanted else "behind" if version in known else "ahead"


@contextmanager
def engine_at(url: str) -> Iterator[sqlalchemy.Engine]:
    """An engine whose connections are closed at the end."""
    parsed = parsed_url(url)
    engine = sqlalchemy.create_engine(full_url(parsed), **engine_options(parsed))
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _storage_as_it_is(url: str) -> Iterator[RDBStorage]:
    """Optuna's storage on tables of any version."""
    parsed = parsed_url(url)
    with experimental():
        storage = RDBStorage(
            full_url(parsed), engine_kwargs=engine_options(parsed), skip_compatibility_check=True, skip_table_creation=True
        )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def _quiet_alembic() -> Iterator[None]:
    """Optuna's migrations configure logging for the whole process, unless somebody has."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
