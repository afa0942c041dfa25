"""Where a user says that weights are to be kept, as a store: a folder, or a bucket."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from allocsearch.backends.artifacts import FolderArtifacts
from allocsearch.backends.bucket import NOT_INSTALLED, BucketArtifacts
from allocsearch.core.errors import InputError
from allocsearch.core.ports import ArtifactStore

_BUCKET: Final = re.compile(r"s3://([\w.-]{1,255})/*(?:/([^?#@\s]*?))?/*", re.ASCII)


def artifact_store(place: str | Path, study: str) -> ArtifactStore:
    """The store of the weights of `study` at `place`, a folder or `s3://BUCKET/PREFIX`: below it, under the study's name.

    Raises:
        InputError: where the place is neither, holds credentials, or needs what is not installed.
    """
    found = _bucket(place)
    if found is None:
        return FolderArtifacts(_absolute(place) / study)  # it travels to workers, and each of them works in a folder of its own
    if find_spec("boto3") is None:
        raise InputError(NOT_INSTALLED)
    bucket, prefix = found
    return BucketArtifacts(bucket, f"{prefix}/{study}" if prefix else study)


def folder_of(place: str | Path) -> Path | None:
    """The folder that `place` is, as it is named from any working folder; None for a bucket.

    Raises:
        InputError: where it is neither a folder nor a bucket.
    """
    return _absolute(place) if _bucket(place) is None else None


def _absolute(folder: str | Path) -> Path:
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:  # `~somebody`
        raise InputError(
            f"artifacts must be kept in a folder of a known user, but {str(folder)!r} is of nobody: write its path out"
        ) from error


def _bucket(place: str | Path) -> tuple[str, str] | None:
    text = str(place)
    if "://" not in text and not text.startswith("s3:/"):  # what a `Path` makes of a URL
        return None
    found = _BUCKET.fullmatch(text)
    if found is None:  # the text is not repeated, as a part of it may be a password
        raise InputError(
            "artifacts must be kept in a folder or in s3://BUCKET/PREFIX, given as a string and without credentials, but got another URL: "
            "boto3 finds the credentials by itself, in the environment, a profile or a role"
        )
    return found[1], found[2] or ""
