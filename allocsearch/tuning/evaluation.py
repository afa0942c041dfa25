"""A trained adapter on a task's test split."""

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open

from allocsearch.core.errors import InputError, gist, quoted
from allocsearch.core.front import wilson_interval
from allocsearch.models import LoadedBase, load_base
from allocsearch.training.classify import num_classes
from allocsearch.training.examples import Task
from allocsearch.training.objective import Objective
from allocsearch.transformers_log import adapting

MAX_NEW_TOKENS: Final = 64
INTERVAL: Final = "95 % Wilson over the test rows; does not cover the training seed's noise"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy on test rows with its interval, and the mean NLL in nats per row."""

    task: str
    task_digest: str
    rows: int
    accuracy: float
    interval: tuple[float, float]
    nll: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "interval": list(self.interval), "interval_kind": INTERVAL, "split": "test"}


def evaluated(model: Any, objective: Objective, task: Task, *, rows: int | None) -> Evaluation:
    """The score of `model` on the first `rows` test rows (all without a number), which are in an order given by hash."""
    examples = task.test[:rows]
    found = objective.score(model, examples, objective.encode(examples))
    interval = wilson_interval(found.accuracy, len(examples))
    return Evaluation(task.name, task.digest, len(examples), found.accuracy, interval, found.mean_nll)


def evaluate(
    adapter: Path,
    task: Task,
    *,
    rows: int | None,
    dtype: str,
    max_tokens: int,
    base: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Evaluation:
    """Load the adapter in a folder on its base (or on the one at `base`) and score it.

    Raises:
        InputError: where the folder holds no adapter, its base is out of reach, or the two do not fit.
    """
    say(f"loading {adapter} and its base")
    loaded, model = load_adapter(adapter, dtype=dtype, classes=num_classes(task), base=base)
    say(f"scoring {len(task.test[:rows]):,} test rows of {task.name}, on {model.device}")
    objective = Objective(loaded.tokenizer, loaded.head, task.metric, max_tokens, MAX_NEW_TOKENS)
    return evaluated(model, objective, task, rows=rows)


def load_adapter(adapter: Path, *, dtype: str, classes: int | None, base: str | None) -> tuple[LoadedBase, Any]:
    """The base that an adapter names, or `base`, and the adapted model in evaluation mode, on a GPU where there is one."""
    import allocsearch.moelora  # noqa: PLC0415, F401 - registers the tuner with PEFT

    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise InputError(
                f"an adapter must be a folder with an {name}, but {quoted(str(adapter))} has none: see allocsearch train --help"
            )
    _check_whole(adapter / "adapter_model.safetensors")
    try:
        config = PeftConfig.from_pretrained(str(adapter))
    except Exception as error:  # the reason: PEFT does not check what it reads, and fails wherever the first wrong value is used
        raise InputError(f"{adapter}: adapter_config.json must be one that PEFT reads, but: {gist(error)}") from error
    source = base or config.base_model_name_or_path
    if not source:
        raise InputError(f"an adapter must name its base model, but {quoted(str(adapter))} does not: give it with --model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_base(source, dtype=dtype, device=device, revision=config.revision if base is None else None, num_classes=classes)
    try:
        with adapting(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")  # they would keep their random values
            model = PeftModel.from_pretrained(loaded.model, str(adapter))
    except Exception as error:  # the reason: as above
        raise InputError(f"an adapter must fit its base, but {quoted(str(adapter))} does not fit {source!r}: {gist(error)}") from error
    return loaded, model.eval()


def _check_whole(weights: Path) -> None:
    """Before a base is loaded for them. The format's header says how long the file is."""
    try:
        with safe_open(weights, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"an adapter's weights must be a whole safetensors file, but {quoted(str(weights))} is not: {gist(error)}; copy it again"
        ) from error
