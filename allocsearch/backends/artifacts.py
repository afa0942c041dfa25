"""Adapters' weights in Optuna's artifact store: a folder that workers write and the driver prunes."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from allocsearch.core.errors import InputError

_LINK_PREFIX: Final = "artifacts:"  # where Optuna and its dashboard look for artifacts


@dataclass(frozen=True, slots=True)
class FolderArtifacts:
    """The ArtifactStore port on a folder that the driver and the workers share."""

    folder: Path

    def check(self) -> None:
        """Raise InputError where nothing can be stored, before anything is trained."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise InputError(
                f"the folder of weights must be one that can be written, but {self.folder}: {error.strerror}: give another with --artifacts"
            ) from error

    def write(self, name: str, file: Path) -> None:
        """Store a copy of `file` under `name`; a reader never sees half of it, also where two write at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = f"{name}.{uuid4().hex}.part"
        try:
            with file.open("rb") as stream:
                self._store().write(part, stream)  # which refuses a name that leaves the folder
            (self.folder / part).replace(self.folder / name)
        finally:
            self.remove(part)  # a disk that is full must not stay so for half a file

    def read(self, name: str, file: Path) -> None:
        """Copy what is stored under `name` to `file`."""
        try:
            with self._store().open_reader(name) as stream, file.open("wb") as target:
                shutil.copyfileobj(stream, target)
        except ArtifactNotFound as error:
            raise not_kept(name, self.folder) from error

    def remove(self, name: str) -> None:
        """Forget `name`."""
        try:
            self._store().remove(name)
        except ArtifactNotFound:
            return

    def _store(self) -> FileSystemArtifactStore:
        return FileSystemArtifactStore(str(self.folder))


def not_kept(name: str, place: object) -> InputError:
    """Why what is stored nowhere cannot be read."""
    return InputError(
        f"the weights {name!r} must be in {place}, but they are not: only the front's are kept; export another format and train it"
    )


def link(study: optuna.Study, name: str) -> None:
    """List an artifact with its study, as Optuna's own upload would: a worker wrote it, who may not write to the database.

    With the study and not its trial, since nothing of a finished trial can be changed when its weights are deleted.
    """
    meta = {"artifact_id": name, "filename": name, "mimetype": "application/octet-stream", "encoding": None}
    _set(study, name, meta)


def unlink(study: optuna.Study, name: str) -> None:
    """Take an artifact off its study's list, the way Optuna's dashboard does."""
    _set(study, name, None)


def linked(study: optuna.Study) -> frozenset[str]:
    """The names of the artifacts that the study has."""
    attrs = study._storage.get_study_system_attrs(study._study_id)  # noqa: SLF001 - see `_set`
    return frozenset(
        key.removeprefix(_LINK_PREFIX) for key, value in attrs.items() if key.startswith(_LINK_PREFIX) and json.loads(value) is not None
    )


def _set(study: optuna.Study, name: str, meta: dict[str, str | None] | None) -> None:
    """Optuna's own place for it; the public upload would need the file here, and the database there."""
    study._storage.set_study_system_attr(study._study_id, _LINK_PREFIX + name, json.dumps(meta))  # noqa: SLF001
