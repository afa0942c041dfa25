"""The model card: what was trained, what speaks for its allocation, and what does not. What others named is text in it, never markup."""

from pathlib import Path
from typing import Any, Final

import yaml

from allocsearch.builtin_models import BUILTIN_MODELS
from allocsearch.core.allocation import Allocation
from allocsearch.core.versions import TRAINING, versions_of
from allocsearch.exported import ComparisonRecord, ConfirmationRecord, ExportedConfig
from allocsearch.markup import escaped
from allocsearch.tuning.evaluation import INTERVAL, Evaluation

_PACKAGES: Final = (*TRAINING, "accelerate", "safetensors")


def versions() -> dict[str, str]:
    """Of Python and the packages that the training depends on."""
    return versions_of(_PACKAGES)


def hub_base(exported: ExportedConfig) -> str | None:
    """The hub id of the base model; None where it is a folder, whose place says nothing to others."""
    known = BUILTIN_MODELS.get(exported.model.id)
    if known is not None:
        return known.hub_id
    return None if Path(exported.model.id).is_absolute() else exported.model.id


def card(exported: ExportedConfig, record: dict[str, Any], *, test: Evaluation | None) -> str:
    """The text of README.md."""
    base = hub_base(exported)
    head = {"library_name": "peft", "tags": ["moe-lora", "allocsearch"], **({} if base is None else {"base_model": base})}
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# MoE-LoRA adapter for {escaped(base or Path(exported.model.id).name)}, trained on {escaped(record['task'])}\n",
        _allocation(exported),
        _measured(test),
        _evidence(exported),
        _training(record),
        _loading(exported),
    ]
    return "\n".join(parts)


def _allocation(exported: ExportedConfig) -> str:
    routing, counted = exported.routing, exported.parameters
    return (
        f"Experts per layer, bottom to top: `{Allocation.parse(exported.allocation)}`, router `{routing.router}`, top-k {routing.top_k}; "
        f"{counted.trainable:,} trainable parameters, at most {counted.active:,} active per token.\n"
    )


def _measured(test: Evaluation | None) -> str:
    if test is None:
        return "## Test accuracy\n\nNot measured: `allocsearch evaluate` measures it.\n"
    low, high = test.interval
    return (
        f"## Test accuracy\n\n{test.accuracy:.4f} [{low:.4f}, {high:.4f}] on {test.rows:,} test rows of {escaped(test.task)}, "
        f"NLL {test.nll:.4f} nats per row. Interval: {INTERVAL}.\n"
    )


def _evidence(exported: ExportedConfig) -> str:
    score, origin, proxy = exported.score, exported.study, exported.fidelity
    low, high = score.interval
    lines = [
        "## Evidence for the allocation\n",
        f"The numbers of this section are of short trainings ({proxy.steps:,} steps on {proxy.train_rows:,} rows), not of this adapter.\n",
        (
            f"- Found as trial {origin.trial} of study {escaped(origin.name)} ({origin.trials} finished trials, "
            f"space {escaped(origin.space)}, proposed by {escaped(origin.origin)}); picked: {escaped(exported.picked)}."
        ),
        f"- Accuracy on the {score.split} split: {score.accuracy:.4f} [{low:.4f}, {high:.4f}], NLL {score.nll:.4f}, {score.rows:,} rows, "
        f"seeds {list(score.seeds)}. Interval: {escaped(score.interval_kind)}."
        + (" It was picked by this number, which is therefore biased upwards." if score.selection_biased else ""),
    ]
    if score.frozen_base_accuracy is not None:
        lines.append(f"- The frozen base on the same rows: {score.frozen_base_accuracy:.4f}.")
    lines += ["- No confirmation on test rows."] if exported.confirmation is None else _confirmation(exported.confirmation)
    return "\n".join(lines) + "\n"


def _confirmation(found: ConfirmationRecord) -> list[str]:
    low, high = found.interval
    return [
        (
            f"- Confirmed on {found.rows:,} test rows with the fresh seeds {list(found.seeds)}: {found.accuracy:.4f} "
            f"[{low:.4f}, {high:.4f}], NLL {found.nll:.4f}. Interval: {escaped(found.interval_kind)}.\n"
        ),
        "| against | its trainable parameters | lead in accuracy | interval | adjusted p | verdict | covers seeds |",
        "|---|---|---|---|---|---|---|",
        *(_row(each) for each in found.comparisons),
    ]


def _row(each: ComparisonRecord) -> str:
    low, high = each.interval
    covers = "yes" if each.covers_seeds else "no"
    return (
        f"| {escaped(each.against)} | {each.trainable:,} | {each.difference:+.4f} | [{low:+.4f}, {high:+.4f}] | {each.p_adjusted:.3f} | "
        f"{each.verdict} | {covers} |"
    )


def _training(record: dict[str, Any]) -> str:
    done = {key: value for key, value in record["done"].items() if key not in {"adapter", "test"}}
    rows = [
        f"| {escaped(key.replace('_', ' '))} | {escaped(str(value))} |"
        for key, value in {**record["settings"], **done, **record["versions"]}.items()
    ]
    return "\n".join(["## Training\n", "| | |", "|---|---|", *rows]) + "\n"


def _loading(exported: ExportedConfig) -> str:
    encoder = "CausalLM" not in exported.model.architecture and "LMHead" not in exported.model.architecture
    kind = "AutoPeftModelForSequenceClassification" if encoder else "AutoPeftModelForCausalLM"
    return (
        "## Use\n\n```python\nimport allocsearch.moelora  # registers the tuner with PEFT\n"
        f'from peft import {kind}\n\nmodel = {kind}.from_pretrained("this folder or repository")\n```\n'
    )
