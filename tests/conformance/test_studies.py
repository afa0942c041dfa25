"""The Study cases on every database that the project supports."""

import pytest

from tests.conformance.study_cases import StudyCases


class TestSqlite(StudyCases):
    @pytest.fixture
    def url(self, sqlite_url):
        return sqlite_url


class TestPostgres(StudyCases):
    @pytest.fixture
    def url(self, postgres_url):
        return postgres_url
