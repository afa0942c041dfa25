"""allocsearch's own tables, beside Optuna's: what they are, and how alembic makes them or brings them up to date.

Their version stands in a table of its own, since Optuna has `alembic_version`.
"""

import time
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

VERSION_TABLE: Final = "allocsearch_version"
LEASES: Final = sa.Table(
    "allocsearch_leases",
    sa.MetaData(),
    sa.Column("study", sa.String(512), primary_key=True),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("place", sa.String(255), nullable=False),
    sa.Column("born", sa.Double, nullable=False),
)

_ATTEMPTS: Final = 10
_PAUSE_SECONDS: Final = 0.2


class Now(FunctionElement[float]):
    """The database's clock, in seconds since 1970: drivers' clocks differ, and this one they share."""

    type = sa.Double()
    inherit_cache = True


@compiles(Now, "sqlite")
def _sqlite_now(_element: Now, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(Now, "postgresql")
def _postgres_now(_element: Now, _compiler: Any, **_: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"


def version(engine: sa.Engine) -> str | None:
    """That of the tables; None where there are none."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def versions() -> list[str]:
    """Those that this allocsearch knows, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]


def upgrade(engine: sa.Engine) -> None:
    """Make the tables, or bring them to the newest version. Of several processes that do so at once, the later ones look again."""
    for attempt in range(_ATTEMPTS):
        try:
            with engine.connect() as connection:
                command.upgrade(_config(connection), "head")
                connection.commit()
        except DatabaseError as error:
            raced = "already exists" in str(error) or VERSION_TABLE in str(error)
            if not raced or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
