"""A trained adapter on the Hugging Face hub, where its owner asks for that."""

from pathlib import Path
from typing import Final

from huggingface_hub import HfApi

from allocsearch.core.errors import InputError, gist
from allocsearch.exported import ExportedConfig
from allocsearch.hub import hub_reachable

_FILES: Final = ["README.md", "adapter_config.json", "adapter_model.safetensors", "allocsearch.yaml", "training.json"]


def check_publishable(exported: ExportedConfig, repo: str) -> None:
    """Refuse before hours of training what would fail, or tell strangers of this machine's folders, after them.

    Raises:
        InputError: for a base that is a folder, a hub that is out of reach, and a missing login.
    """
    if "/" not in exported.model.id or exported.model.id.startswith(("/", ".", "~")):
        raise InputError(
            f"a published adapter must name its base by a hub id, but this one's is {exported.model.id!r}: "
            "put the id in `model.id` of the config"
        )
    if not hub_reachable():
        raise InputError(f"--push-to-hub {repo} needs the hub, which cannot be reached: connect and unset HF_HUB_OFFLINE, or leave it out")
    try:
        HfApi().whoami()
    except Exception as error:  # the reason: the HTTP library under the client changes, with its errors
        raise InputError(f"--push-to-hub {repo} needs a login: run `hf auth login` ({gist(error)})") from error


def publish(folder: Path, repo: str) -> str:
    """Upload the adapter, its evidence and its card to `repo`, made as a private one where it is new; returns its address.

    Raises:
        InputError: where the hub refuses.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=_FILES, commit_message="Adapter trained by allocsearch")
    except Exception as error:  # the reason: the HTTP library under the client changes, with its errors
        raise InputError(f"{folder} is trained, but the hub refused {repo!r} ({gist(error)}): upload it with `hf upload`") from error
    return str(url)
