"""What may differ from machine to machine: a driver's options, and the places that a study's files lie at. Nothing here loads PyTorch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from allocsearch.backends.artifact_store import folder_of
from allocsearch.backends.commands import command
from allocsearch.resources_spec import ResourcesSpec
from allocsearch.spec import StudySpec


@dataclass(frozen=True)
class Options:
    """What may differ from machine to machine without changing what a study finds."""

    storage: str | None = None
    workers: int | None = None
    address: str | None = None
    artifacts: str | Path | None = None
    inline: bool = False
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)

    def __post_init__(self) -> None:
        """A place that may hold a password is refused before it is shown or sent anywhere."""
        if self.artifacts is not None:
            folder_of(self.artifacts)

    def command(self, *words: object) -> str:
        """`allocsearch WORDS` with these options, to be typed next."""
        mine = {"storage": self.storage, "workers": self.workers, "address": self.address, "artifacts": self.artifacts}
        return command(*words, **mine, inline=self.inline, **self.resources.model_dump())


HERE: Final = Options()
"""This machine, with everything at its default."""


def paths_of(spec: StudySpec) -> tuple[str, ...]:
    """Files and folders that every trial reads: local data, and a model that is a folder."""
    given = (spec.task.path, spec.task.test_path, spec.model if Path(spec.model).is_absolute() else None)
    return tuple(path for path in given if path is not None)
