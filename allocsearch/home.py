"""The folder where allocsearch keeps what outlives a run: built-in models, studies without a storage of their own."""

import os
from pathlib import Path

import platformdirs

from allocsearch.core.errors import InputError


def home() -> Path:
    """The folder that `ALLOCSEARCH_HOME` names, or the platform's user data folder; created where it does not exist.

    Raises:
        InputError: where the folder cannot be created.
    """
    given = os.environ.get("ALLOCSEARCH_HOME")
    folder = Path(given).expanduser().absolute() if given else platformdirs.user_data_path("allocsearch", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"the home folder must be creatable, but {str(folder)!r} is not ({reason}): set ALLOCSEARCH_HOME to a writable folder"
        ) from error
    return folder
