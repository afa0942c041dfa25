"""What `export`, `train` and `evaluate` print."""

from typing import Any, Literal

from allocsearch.exported import ExportedConfig
from allocsearch.outputs.rows import Count, Interval, Share
from allocsearch.space_spec import Closed


class ExportOutput(Closed):
    """`export`: the trial, why it was picked, where it was written (null: nowhere), and its config."""

    study: str
    trial: Count
    why: str
    path: str | None
    notes: tuple[str, ...]
    config: ExportedConfig


class Evaluated(Closed):
    """A model on test rows."""

    task: str
    task_digest: str
    rows: Count
    accuracy: Share
    interval: Interval
    interval_kind: str
    nll: float
    split: Literal["test"]


class EvaluateOutput(Evaluated):
    """`evaluate`."""

    adapter: str


class HarnessOutput(Closed):
    """`evaluate --harness`: lm-eval's metrics for each of its tasks."""

    adapter: str
    harness: dict[str, dict[str, Any]]


class TrainOutput(Closed):
    """`train`."""

    adapter: str
    steps: Count
    train_rows: Count
    trainable: Count
    last_step_loss: float | None
    test: Evaluated | None
    published: str | None
