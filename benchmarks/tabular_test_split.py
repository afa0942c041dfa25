"""Scores trained adapters on rows that no search sees: the test split, from the weights that the proxy leaves."""

import warnings
from functools import cached_property
from pathlib import Path

from peft import get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file

from allocsearch.core.trial import SeedScore
from allocsearch.models import LoadedBase, load_base
from allocsearch.spec import StudySpec
from allocsearch.training.adapter import adapter_config
from allocsearch.training.collate import EncodedExample, encode
from allocsearch.training.evaluate import score
from allocsearch.training.tasks import Task, load_task


class KeptWeights:
    """The ArtifactStore port, for the last trained adapter alone."""

    def __init__(self, last: Path) -> None:
        self.last = last

    def write(self, name: str, file: Path) -> None:  # noqa: ARG002 - each replaces the one before
        self.last.write_bytes(file.read_bytes())


class TestRows:
    """The first rows of a study's test split, on a base of their own."""

    def __init__(self, spec: StudySpec, model: str, num_rows: int) -> None:
        self.spec, self.wanted = spec, num_rows > 0
        self._model, self._num_rows = model, num_rows

    def score(self, allocation: str, *, seed: int, weights: Path) -> SeedScore:
        """Accuracy and NLL per test row of the adapter stored in `weights`, which is removed."""
        proxy, task = self.spec.proxy, self._task
        config = adapter_config(
            allocation, self.spec.routing.routing(), alpha=proxy.alpha, aux_loss_weight=proxy.aux_loss_weight, seed=seed
        )
        with warnings.catch_warnings():
            # PEFT asks transformers under a name that transformers is about to retire.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            model = get_peft_model(self._base.model, config)
        try:
            set_peft_model_state_dict(model, load_file(weights))
            rows = task.test[: self._num_rows]
            return score(
                model, self._base.tokenizer, rows, self._encoded, metric=task.metric, seed=seed, max_new_tokens=proxy.max_new_tokens
            )
        finally:
            model.unload()
            weights.unlink()

    @cached_property
    def _base(self) -> LoadedBase:
        return load_base(self._model, dtype=self.spec.proxy.dtype, revision=self.spec.revision)

    @cached_property
    def _task(self) -> Task:
        return load_task(self.spec.task.source())

    @cached_property
    def _encoded(self) -> tuple[EncodedExample, ...]:
        return encode(self._task.test[: self._num_rows], self._base.tokenizer, max_tokens=self.spec.proxy.max_tokens)
