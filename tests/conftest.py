"""Fixtures that more than one test file uses."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A machine under load must not fail a law: pytest's own timeout stops what hangs.
settings.register_profile("allocsearch", deadline=None)
settings.load_profile("allocsearch")


@pytest.fixture(scope="session")
def smollm2():
    """Folder of the built-in SmolLM2-135M, pulled once per machine; for tests marked `slow`."""
    cache = Path(os.environ.get("ALLOCSEARCH_TEST_HOME", "~/.cache/allocsearch-tests")).expanduser()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLOCSEARCH_HOME", str(cache))
        from allocsearch.model_store import pull

        yield pull("smollm2-135m")
