"""A trial as a config that others read: YAML with its evidence, or a folder that PEFT loads."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.errors import InputError, MachineError, line_of
from allocsearch.core.ports import ArtifactStore
from allocsearch.evidence import Evidence
from allocsearch.exported import SCHEMA, ExportedConfig
from allocsearch.formats.writing import explained, new_folder
from allocsearch.search import results
from allocsearch.search.results import Pick, Point


def choose(record: StudyRecord, *, trial: int | None, pick: Pick, see: str) -> tuple[Point, str]:
    """The trial to export and why; `see` is the command that tells which trials there are.

    Raises:
        InputError: where that trial is not a finished one.
    """
    if trial is None:
        chosen = results.picked(record.trials, pick, record.spec.metric)
        return chosen, results.reason(pick, chosen, record.trials, record.spec.metric)
    for point in results.points(record.trials):
        if point.trial.number == trial:
            return point, f"trial {trial}, chosen by hand"
    raise InputError(f"a trial to export must have finished, but trial {trial} of {record.name!r} has not: see {see}")


def config(
    record: StudyRecord, point: Point, why: str, *, layers: list[Mapping[str, Any]], architecture: str, found: Evidence | None = None
) -> ExportedConfig:
    """The exported config of `point`; `layers` are the rows of `views.cost_json`, `found` what the test rows say of it."""
    spec, measured = record.spec, point.measured
    return ExportedConfig.model_validate(
        {
            "schema": SCHEMA,
            "allocation": str(point.trial.assignment.allocation),
            "layers": layers,
            "routing": spec.routing.model_dump(mode="json"),
            "alpha": spec.proxy.alpha,
            "aux_loss_weight": spec.proxy.aux_loss_weight,
            "model": {
                "id": spec.model,
                "revision": spec.revision,
                "architecture": architecture,
                "shape_hash": record.attrs["shape_digest"],
                "weights": record.attrs["model_digest"],
            },
            "parameters": {"budget": spec.budget, "trainable": point.trial.cost.trainable, "active": point.trial.cost.active},
            "score": {
                "accuracy": point.accuracy,
                "interval": list(point.interval),
                "interval_kind": "95 % Wilson over rows; covers neither seed noise nor selection",
                "nll": point.nll,
                "split": "search",
                "selection_biased": True,
                "rows": point.num_rows,
                "seeds": [score.seed for score in measured.scores],
                "frozen_base_accuracy": None if record.base is None else record.base.accuracy,
            },
            "confirmation": None if found is None else _confirmation(found),
            "fidelity": {
                "train_rows": spec.proxy.train_rows,
                "steps": spec.proxy.num_steps,
                "batch_size": spec.proxy.batch_size,
                "learning_rate": spec.proxy.learning_rate,
                "dtype": spec.proxy.dtype,
            },
            "study": {
                "name": record.name,
                "spec_hash": spec.digest,
                "trial": point.trial.number,
                "origin": point.trial.origin,
                "trials": len(results.points(record.trials)),
                "task": spec.task.name,
                "space": spec.space.name,
            },
            "picked": why,
            "versions": dict(record.attrs.get("versions", {})),
            "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )


def _confirmation(found: Evidence) -> dict[str, Any]:
    row = found.winner
    return {
        "accuracy": row.accuracy,
        "interval": list(row.interval),
        "interval_kind": "95 % Wilson over the test rows, of the mean over seeds; does not cover seed noise",
        "nll": row.nll,
        "rows": len(row.results.scores[0].correct),
        "seeds": list(row.results.seeds),
        "comparisons": [
            {
                "against": found.row(each.baseline).label,
                "trainable": found.row(each.baseline).trial.cost.trainable,
                "difference": each.difference,
                "interval": list(each.interval),
                "p_adjusted": each.p_adjusted,
                "verdict": each.verdict,
                "covers_seeds": each.covers_seeds,
            }
            for each in found.comparisons
        ],
    }


def to_yaml(exported: ExportedConfig) -> str:
    """The YAML text of an exported config."""
    return yaml.safe_dump(exported.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True, width=120)


def write_peft(exported: ExportedConfig, *, base_model: str, weights: str | None, artifacts: ArtifactStore, folder: Path) -> None:
    """A PEFT adapter folder: config, the trial's trained weights (safetensors), and the YAML with the evidence.

    Raises:
        InputError: where the trial's weights were not kept or cannot be read, or `folder` has something else in it.
    """
    if weights is None:
        raise InputError(
            f"a PEFT export needs the trial's weights, but those of trial {exported.study.trial} were not kept (it is not on the front): "
            f"export it with --format yaml and train it"
        )
    from allocsearch.models import head_of  # noqa: PLC0415 - see below
    from allocsearch.training.adapter import adapter_config  # noqa: PLC0415 - imports torch, which a YAML export does without

    adapter = adapter_config(
        exported.allocation,
        exported.routing.routing(),
        alpha=exported.alpha,
        aux_loss_weight=exported.aux_loss_weight,
        base=base_model,
        head=head_of(base_model, exported.model.revision),
    )
    adapter.inference_mode = True

    with new_folder(folder) as draft:
        fetch(weights, artifacts, draft / "adapter_model.safetensors")
        with explained(folder):
            adapter.save_pretrained(str(draft))
            (draft / "allocsearch.yaml").write_text(to_yaml(exported), encoding="utf-8")


def fetch(weights: str, artifacts: ArtifactStore, file: Path) -> None:
    """Copy `weights` to `file`.

    Raises:
        InputError: where they cannot be read.
    """
    try:
        artifacts.read(weights, file)
    except (OSError, MachineError) as error:
        raise InputError(f"the weights {weights!r} must be there to be copied, but: {line_of(error)}") from error
