"""The folder that a training leaves: a PEFT adapter, the evidence of its search, the settings, and a model card."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from allocsearch.core.errors import InputError
from allocsearch.exported import ExportedConfig
from allocsearch.training import checkpoint
from allocsearch.tuning.card import card, versions
from allocsearch.tuning.evaluation import Evaluation
from allocsearch.tuning.settings import Settings
from allocsearch.tuning.sources import EVIDENCE_FILE

RECORD: Final = "training.json"
WEIGHTS: Final = "adapter_model.safetensors"


def check_output(output: Path, *, resume: bool) -> None:
    """Refuse to write over something else.

    Raises:
        InputError: for a place that is taken, and for a training to resume that has ended.
    """
    try:
        _check_place(output, resume=resume)
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the output must be a folder that can be written, but {output}: {error.strerror}") from error
    if not os.access(output, os.W_OK):
        raise InputError(f"the output must be a folder that can be written, but {output} cannot: choose another with -o")


def _check_place(output: Path, *, resume: bool) -> None:
    if resume and (output / WEIGHTS).is_file() and not (output / checkpoint.FILE).is_file():
        raise InputError(f"a training to resume must not have ended, but {output} holds its adapter: nothing is left to do")
    if not resume and output.exists() and (not output.is_dir() or any(output.iterdir())):
        remedy = "continue with --resume" if (output / checkpoint.FILE).is_file() else "choose another with -o"
        raise InputError(f"the output must be a new or empty folder, but {output} exists: {remedy}")


def leave(
    model: Any,
    trained: dict[str, Any],
    exported: ExportedConfig,
    settings: Settings,
    *,
    task: str,
    done: dict[str, Any],
    test: Evaluation | None,
    output: Path,
) -> None:
    """Write the adapter and its papers, then let go of the checkpoint: a death before that leaves a training to resume.

    `trained` are the trained parameters by name, whole.
    """
    record = {"settings": settings.to_json(), "task": task, "done": {**done, "adapter": None}, "versions": versions()}
    evidence = yaml.safe_dump(exported.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True, width=120)
    with tempfile.TemporaryDirectory(dir=output, prefix=".draft-") as scratch:
        draft = Path(scratch)
        model.save_pretrained(str(draft), state_dict=trained)
        (draft / EVIDENCE_FILE).write_text(evidence, encoding="utf-8")
        (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (draft / "README.md").write_text(card(exported, record, test=test), encoding="utf-8")
        for file in sorted(draft.iterdir()):
            file.replace(output / file.name)
    (output / checkpoint.FILE).unlink(missing_ok=True)


def recorded(output: Path) -> dict[str, Any]:
    """The settings that the adapter in a folder was trained with; empty where it does not say."""
    try:
        found = json.loads((output / RECORD).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
