"""The databases that every Study case runs on: a SQLite file, and PostgreSQL."""

from itertools import count

import pytest

from tests.conformance.toy import Desk

pytest.register_assert_rewrite(*(f"tests.conformance.{name}_cases" for name in ("end", "executor", "proposal", "study")))

_names = count()


@pytest.fixture(scope="session")
def sqlite_url(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('storage')}/studies.db"


@pytest.fixture
def desk(url):
    """A new study at `url`. Studies share a database, so that a trial's id and its number differ."""
    desk = Desk(url, f"study-{next(_names)}")
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def ray_session():
    """One Ray session for the whole file, made the way that the executor makes its own."""
    from allocsearch.backends.ray_session import session

    with session(num_cpus=2, address=None):
        yield
