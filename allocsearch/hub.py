"""The Hugging Face hub, asked politely: whether it answers at all, and single files with errors that name the remedy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from allocsearch.core.errors import InputError, gist

_PROBE_SECONDS: Final = 3.0
_TRUE: Final = frozenset({"1", "ON", "YES", "TRUE"})


def hub_reachable() -> bool:
    """Whether the hub answers within three seconds; False without asking where `HF_HUB_OFFLINE` is set.

    The client's own retries take more than twenty seconds to find out that a machine has no network, so this is asked first.
    """
    if constants.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    except Exception:  # noqa: BLE001 - the client's HTTP library, and with it the error of a dead network, changes between versions
        return False
    return True


def hub_file(repo_id: str, filename: str, *, revision: str | None = None, kind: str = "model") -> Path:
    """The local path of one file of a hub repository, from the cache where the hub is out of reach.

    Raises:
        InputError: for an id that is not one, an unknown or gated repository, an unknown revision or file, or no way to reach the hub.
    """
    what = f"{kind} {repo_id!r}" + (f" at revision {revision!r}" if revision else "")
    offline = not hub_reachable()
    try:
        return Path(hf_hub_download(repo_id, filename, revision=revision, repo_type=kind, local_files_only=offline))
    except HFValidationError as error:
        raise InputError(f"a {kind} must be a folder or a hub id such as owner/name, but got {repo_id!r}") from error
    except GatedRepoError as error:
        raise InputError(f"{what} is gated: accept its terms on the hub's page and log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{what} is not on the hub, or is private: check the name, or log in with `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{what} is not on the hub: give a branch, tag or commit of {repo_id!r}") from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{what} is not in the local cache and the hub cannot be reached: connect and unset HF_HUB_OFFLINE, or give a folder"
        ) from error
    except EntryNotFoundError as error:
        raise InputError(f"{what} must have a file {filename!r}, but the hub has none: give another {kind}") from error
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise InputError(f"{what}: the hub refuses the token, which may be revoked: log in again with `hf auth login`") from error
        raise InputError(_unfetched(what, filename, error)) from error
    except Exception as error:  # the reason: the HTTP library under the client changes, with its errors
        raise InputError(_unfetched(what, filename, error)) from error


def _unfetched(what: str, filename: str, error: Exception) -> str:
    return f"{what}: {filename!r} could not be fetched ({gist(error)}): try again, or give a folder"


def has_weights(repo_id: str, commit: str) -> bool:
    """Whether the cache holds weights of a model at that commit; the hub is not asked."""
    config = try_to_load_from_cache(repo_id, "config.json", revision=commit)
    return isinstance(config, str) and any(Path(config).parent.glob("*.safetensors"))


@contextmanager
def without_hub() -> Iterator[None]:
    """The hub's client in its offline mode: for libraries that would otherwise retry a hub which is known to be out of reach."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
