"""How the final training runs, and which of its settings a checkpoint insists on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from allocsearch.core.errors import InputError
from allocsearch.exported import ExportedConfig

WARMUP_SHARE: Final = 0.1
WEIGHT_DECAY: Final = 0.0
MAX_GRAD_NORM: Final = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one training.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows of an optimiser step, over all processes and passes.
        gradient_accumulation: forward passes that a process splits its part of a batch into. It changes memory, not the batches.
        learning_rate: AdamW's highest, after the warm-up.
        max_tokens: the longest row.
        gradient_checkpointing: compute activations twice instead of keeping them.
        dtype: of the frozen base; experts are trained in float32.
        seed: of the initial weights and the order of the rows.
    """

    epochs: float
    batch_size: int
    gradient_accumulation: int
    learning_rate: float
    max_tokens: int
    gradient_checkpointing: bool
    dtype: str
    seed: int

    def num_steps(self, num_rows: int) -> int:
        """Optimiser steps on `num_rows` training rows."""
        return max(1, round(num_rows * self.epochs / self.batch_size))

    def check_split(self, num_processes: int) -> None:
        """Refuse a batch that processes and passes cannot share evenly.

        Raises:
            InputError: with what does not divide.
        """
        num_parts = num_processes * self.gradient_accumulation
        if self.batch_size % num_parts:
            raise InputError(
                f"`batch size % (processes × gradient accumulation) == 0` must hold, but got {self.batch_size} % "
                f"({num_processes} × {self.gradient_accumulation}): change --batch-size or --gradient-accumulation"
            )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "warmup_share": WARMUP_SHARE, "weight_decay": WEIGHT_DECAY, "max_grad_norm": MAX_GRAD_NORM}


def identity(settings: Settings, exported: ExportedConfig, *, task_digest: str, weights: str) -> dict[str, Any]:
    """What a resumed training must share with its checkpoint. Both ways to save memory may change: one may be why it died."""
    kept = {key: value for key, value in settings.to_json().items() if key not in {"gradient_accumulation", "gradient_checkpointing"}}
    return {
        **kept,
        "allocation": exported.allocation,
        "routing": exported.routing.model_dump(mode="json"),
        "alpha": exported.alpha,
        "aux_loss_weight": exported.aux_loss_weight,
        "task": task_digest,
        "base weights": weights,
    }


def check_same(before: Mapping[str, Any], now: dict[str, Any]) -> None:
    """Refuse to continue another training.

    Raises:
        InputError: naming what differs.
    """
    changed = [
        f"{key}: {before.get(key)} → {now.get(key)}" for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
    ]
    if changed:
        raise InputError(
            f"a resumed training must have its checkpoint's settings, but they differ ({'; '.join(changed)}): give the old ones"
        )
