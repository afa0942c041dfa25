"""The names of the studies in a storage. Optuna, asked for them, reads all that it knows of every study, its figures included."""

from typing import Final, get_args

import sqlalchemy as sa

from allocsearch.backends.schema import engine_at, is_absent
from allocsearch.backends.storage import explained
from allocsearch.backends.study_record import Companion
from allocsearch.backends.urls import parsed_url

_STUDIES: Final = sa.table("studies", sa.column("study_id", sa.Integer), sa.column("study_name", sa.String))


def is_companion(name: str) -> bool:
    """Whether study `name` was made beside another."""
    return name.rpartition("/")[2] in get_args(Companion) and "/" in name


def names_in(engine: sa.Engine) -> list[str]:
    """Those of allocsearch's studies and of others', sorted; companions are left out."""
    with engine.connect() as connection:
        return sorted(name for name in connection.scalars(sa.select(_STUDIES.c.study_name)) if not is_companion(name))


def names_at(url: str) -> list[str]:
    """`names_in` the database at `url`, whatever it is and whether it is there; nothing is made or written.

    Raises:
        InputError: where it cannot be read.
    """
    if is_absent(parsed_url(url)):
        return []
    with explained(url), engine_at(url) as engine:
        return names_in(engine) if sa.inspect(engine).has_table(_STUDIES.name) else []


def companions_in(engine: sa.Engine, name: str) -> dict[Companion, int]:
    """The ids of the studies that were made beside study `name`, by what they are."""
    by_name = {f"{name}/{kind}": kind for kind in get_args(Companion)}
    with engine.connect() as connection:
        found = connection.execute(sa.select(_STUDIES.c.study_name, _STUDIES.c.study_id).where(_STUDIES.c.study_name.in_(by_name)))
        return {by_name[row.study_name]: row.study_id for row in found}
