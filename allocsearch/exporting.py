"""A trial out of its study: chosen, put together with its evidence, and written in the wanted format."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from allocsearch import export as exports
from allocsearch import views
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.errors import InputError, MachineError
from allocsearch.core.ports import ArtifactStore
from allocsearch.evidence import evidence
from allocsearch.exported import ExportedConfig
from allocsearch.formats.writing import write, write_text
from allocsearch.models import head_of, model_shape, resolve
from allocsearch.options import Options
from allocsearch.search.results import Pick, Point
from allocsearch.workplace import artifacts_of

Format = Literal["yaml", "peft", "mola", "guilomo", "moa", "lora"]
_OWN: Final = ("yaml", "peft")


@dataclass(frozen=True, slots=True)
class Export:
    """What an export made: `text` where it went to no file, `path` where it did."""

    trial: int
    why: str
    config: ExportedConfig
    path: Path | None
    text: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "study": self.config.study.name,
            "trial": self.trial,
            "why": self.why,
            "path": None if self.path is None else str(self.path),
            "notes": list(self.notes),
            "config": self.config.model_dump(mode="json", by_alias=True),
        }


def export(
    catalog: Catalog,
    name: str,
    *,
    trial: int | None = None,
    pick: Pick = "best",
    form: Format = "yaml",
    output: Path | None = None,
    artifacts: str | Path | None = None,
) -> Export:
    """Write a trial of study `name` to `output`; a single text without one is not written, a folder goes to a name of its own.

    Raises:
        InputError: where the trial has not finished, its weights are needed and were not kept or cannot be had, or the place is taken.
    """
    if form not in get_args(Format):
        raise InputError(f"a format must be one of {', '.join(get_args(Format))}, but got {form!r}")
    record = catalog.record(name)
    chosen, why = exports.choose(record, trial=trial, pick=pick, see=catalog.command("status", name))
    shape = model_shape(record.spec.model, record.spec.revision)
    assignment = chosen.trial.assignment
    layers: list[Mapping[str, Any]] = views.cost_json(assignment.allocation, shape, assignment.routing)["per_layer"]
    found = evidence(catalog, record, trial=chosen.trial.number)
    config = exports.config(record, chosen, why, layers=layers, architecture=shape.architecture, found=found)
    store = artifacts_of(name, Options(artifacts=artifacts))
    try:
        if form in _OWN:
            path, text, notes = _own(form, config, record, chosen, store=store, output=output)
        else:
            path, text, notes = _foreign(form, record, chosen, shape=shape, store=store, output=output)
    except MachineError as error:  # a bucket that does not answer
        raise InputError(str(error)) from error
    return Export(chosen.trial.number, why, config, path, text, notes)


_Written = tuple[Path | None, str, tuple[str, ...]]
"""Where, or the text for nowhere, and notes."""


def _own(
    form: Format, config: ExportedConfig, record: StudyRecord, chosen: Point, *, store: ArtifactStore, output: Path | None
) -> _Written:
    if form == "peft":
        folder = output or Path(f"{record.name}-trial-{chosen.trial.number}")
        exports.write_peft(config, base_model=_base(record), weights=chosen.measured.artifact, artifacts=store, folder=folder)
        return folder, "", ()
    if output is None:
        return None, exports.to_yaml(config), ()
    write_text(exports.to_yaml(config), output)
    return output, "", ()


def _foreign(form: Format, record: StudyRecord, point: Point, *, shape: Any, store: ArtifactStore, output: Path | None) -> _Written:
    """In a format of another project."""
    from allocsearch.formats.recipe import Recipe  # noqa: PLC0415 - not needed for our own
    from allocsearch.formats.table import FORMATS  # noqa: PLC0415

    if head_of(record.spec.model, record.spec.revision).modules:
        raise InputError(f"the {form} format is for causal language models, but {record.spec.model!r} has a head: use --format peft")
    kept, assignment = point.measured.artifact, point.trial.assignment
    with tempfile.TemporaryDirectory(prefix="allocsearch-") as scratch:
        # Those of a trial that has left the front are gone; its config still trains.
        weights = Path(scratch) / "adapter_model.safetensors" if form == "lora" and kept in record.artifacts else None
        if kept is not None and weights is not None:
            exports.fetch(kept, store, weights)
        recipe = Recipe(assignment.allocation, shape, assignment.routing, record.spec.proxy.alpha, _base(record), weights=weights)
        document = FORMATS[form](recipe)
    if output is None and document.text is not None:
        return None, document.text, document.notes
    where = output or Path(f"{record.name}-trial-{point.trial.number}-{form}")
    write(document, where)
    return where, "", document.notes


def _base(record: StudyRecord) -> str:
    """What an exported adapter names as its base: a folder for a built-in model or a given folder, else the hub id."""
    return str(resolve(record.spec.model))
