"""What the commands print that need no study."""

from typing import Literal

from pydantic import Field

from allocsearch.exported import LayerRow
from allocsearch.outputs.rows import Count, Sized
from allocsearch.space_spec import Closed, RoutingSpec


class CostOutput(Sized):
    """`cost`."""

    model: str
    routing: RoutingSpec
    share_of_base: float
    per_layer: tuple[LayerRow, ...]


class CheckRow(Closed):
    """One thing that was looked at."""

    check: str
    level: Literal["ok", "warn", "fail"]
    found: str
    remedy: str | None


class ChecksOutput(Closed):
    """`doctor`, `db check` and `db upgrade`."""

    ok: bool
    checks: tuple[CheckRow, ...]


class SpaceRow(Closed):
    """A shipped space."""

    name: str
    about: str


class SpacesOutput(Closed):
    """`spaces`."""

    spaces: tuple[SpaceRow, ...]


class StudyRow(Closed):
    """A shipped study."""

    name: str
    model: str
    task: str
    space: str
    budget: str
    trials: Count


class StudiesOutput(Closed):
    """`studies`."""

    studies: tuple[StudyRow, ...]


class ModelRow(Closed):
    """A built-in model, and whether it has been fetched."""

    name: str
    about: str
    here: Literal["yes", "no"]


class ModelsOutput(Closed):
    """`models`."""

    models: tuple[ModelRow, ...]


class PulledOutput(Closed):
    """`models pull`."""

    name: str
    path: str
    sha256: str


class ValidateOutput(Closed):
    """`validate`."""

    file: str
    valid: Literal[True]
    schema_version: str = Field(alias="schema")
