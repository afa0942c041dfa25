"""The tables in a storage: whether they are there, and of the version that the installed Optuna works with.

allocsearch keeps no tables of its own: all that it remembers stands in Optuna's.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import sqlalchemy
from optuna.storages import RDBStorage

from allocsearch.backends.optuna_quiet import experimental
from allocsearch.backends.storage import engine_options, explained, full_url, is_sqlite, open_storage, parsed_url, storage_url
from allocsearch.core.errors import InputError
from allocsearch.core.findings import Finding, Level

State = Literal["missing", "current", "behind", "ahead", "foreign"]

_STAMP: Final = "alembic_version"
_ONE_OF_ITS_TABLES: Final = "studies"
_TEXTS: Final[dict[State, tuple[Level, str, str]]] = {
    "missing": ("ok", "no tables yet", "the first run makes them; where its role may not: allocsearch db upgrade, as the owner"),
    "current": ("ok", "Optuna's tables are of version {version}, as needed; allocsearch has none of its own", ""),
    "behind": ("fail", "Optuna's tables are of version {version}, but the installed Optuna needs {wanted}", "allocsearch db upgrade"),
    "ahead": ("fail", "the tables are of version {version}, but the installed Optuna knows none after {wanted}", "install a newer Optuna"),
    "foreign": ("fail", "there are tables of Optuna's names that bear no version", "give the studies a database of their own"),
}


@dataclass(frozen=True, slots=True)
class Schema:
    """Optuna's tables as they stand: `version` is theirs, `wanted` the installed Optuna's; empty where there are none."""

    state: State
    version: str = ""
    wanted: str = ""

    @property
    def finding(self) -> Finding:
        """The same for people."""
        level, found, remedy = _TEXTS[self.state]
        return Finding("schema", level, found.format(version=self.version, wanted=self.wanted), remedy)


def schema_of(url: str | None) -> Schema:
    """The tables at `url`; nothing is made or written.

    Raises:
        InputError: where the database cannot be read.
    """
    url = storage_url(url)
    with explained(url):
        parsed = parsed_url(url)
        if is_sqlite(parsed) and "uri" not in parsed.query and not Path(str(parsed.database)).exists():
            return Schema("missing")  # to connect would make the file
        with engine_at(url) as engine:
            tables = set(sqlalchemy.inspect(engine).get_table_names())
        if _STAMP not in tables:
            return Schema("foreign" if _ONE_OF_ITS_TABLES in tables else "missing")
        with _storage_as_it_is(url) as storage:
            version, wanted, known = storage.get_current_version(), storage.get_head_version(), storage.get_all_versions()
        return Schema("current" if version == wanted else "behind" if version in known else "ahead", version, wanted)


def upgrade(url: str | None) -> tuple[Schema, Schema]:
    """Bring the tables to the installed Optuna's version, or make them: what they were, and what they are.

    Raises:
        InputError: where they are not Optuna's, or of a version that it does not know.
    """
    before = schema_of(url)
    if before.state in {"ahead", "foreign"}:
        raise InputError(f"tables to upgrade must be of a version that the installed Optuna knows, but {before.finding.found}")
    if before.state == "missing":
        open_storage(url)
    elif before.state == "behind":
        url = storage_url(url)
        with explained(url), _storage_as_it_is(url) as storage, _quiet_alembic():
            storage.upgrade()
    return before, schema_of(url)


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
