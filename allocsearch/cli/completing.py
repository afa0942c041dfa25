"""What the shell completes beside commands, options and listed values: names in the package and in the storage. Empty: file names."""

from collections.abc import Iterable
from typing import Literal

import typer


def study_names(incomplete: str) -> list[str]:
    """Of shipped studies."""
    return _document_names("studies", incomplete)


def stored_names(context: typer.Context, incomplete: str) -> list[str]:
    """Of studies in the storage; none where it cannot be read, and no database is made of it."""
    from allocsearch.backends.storage import storage_url  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.study_names import names_at  # noqa: PLC0415

    try:
        return _beginning(names_at(storage_url(context.params.get("storage"))), incomplete)
    except Exception:  # noqa: BLE001 - the reason: a shell shows nothing but names, whatever is wrong with a database
        return []


def space_names(incomplete: str) -> list[str]:
    """Of shipped spaces."""
    return _document_names("search_spaces", incomplete)


def model_names(incomplete: str) -> list[str]:
    """Of built-in models."""
    from allocsearch.builtin_models import BUILTIN_MODELS  # noqa: PLC0415 - a completion should not wait for what it does not need

    return _beginning(BUILTIN_MODELS, incomplete)


def _document_names(folder: Literal["search_spaces", "studies"], incomplete: str) -> list[str]:
    from allocsearch.documents import named  # noqa: PLC0415 - imports pydantic

    return _beginning(named(folder), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
