"""What a worker process keeps from trial to trial: the frozen base, and the rows as token ids."""

from collections.abc import Sequence
from typing import Any

import torch

from allocsearch.core.trial import SeedScore, Split
from allocsearch.models import LoadedBase, load_base
from allocsearch.spec import ProxySpec, StudySpec
from allocsearch.training.accumulation import Pass, dealt
from allocsearch.training.classify import num_classes
from allocsearch.training.collate import ROWS_PER_BATCH, EncodedExample
from allocsearch.training.examples import Example, Task
from allocsearch.training.objective import Objective
from allocsearch.training.proxy import HeadAlone
from allocsearch.training.splits import select
from allocsearch.training.tasks import load_task


class Bench:
    """One study's model and data."""

    def __init__(self, spec: StudySpec, model: str) -> None:
        self.proxy: ProxySpec = spec.proxy
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.task: Task = load_task(spec.task.source())
        classes = num_classes(self.task)
        loaded: LoadedBase = load_base(model, dtype=spec.proxy.dtype, device=device, revision=spec.revision, num_classes=classes)
        self.model, self.tokenizer, self.head = loaded.model, loaded.tokenizer, loaded.head
        self._objective = Objective(self.tokenizer, self.head, self.task.metric, spec.proxy.max_tokens, spec.proxy.max_new_tokens)
        self._seed = spec.proxy.seeds[0]
        self._rows: dict[Split, tuple[Example, ...]] = {
            "search": self.task.search[: spec.proxy.search_rows],
            "test": self.task.test[: spec.proxy.test_rows],
        }
        self._encoded: dict[Split, tuple[EncodedExample, ...]] = {}
        self._base_scores: dict[Split, SeedScore] = {}
        self._training: dict[int, tuple[EncodedExample, ...]] = {}

    def train_encoded(self, seed: int) -> tuple[EncodedExample, ...]:
        """The training rows of `seed`, the same for every allocation."""
        if seed not in self._training:
            rows = select(self.task.train, self.proxy.train_rows, seed=seed)
            self._training[seed] = self._objective.encode(rows)
        return self._training[seed]

    def loss(self, model: Any, encoded: Sequence[EncodedExample]) -> torch.Tensor:
        """The loss to train on."""
        return self._objective.loss(model, encoded)

    def dealt(self, batch: Sequence[EncodedExample], num_passes: int) -> list[Pass]:
        """A batch over several passes."""
        return dealt(self._objective, batch, num_passes)

    def score(self, model: Any, *, seed: int, split: Split, num_passes: int = 1) -> SeedScore:
        """The rows of `split`; more passes take as many fewer rows at a time."""
        rows = self._rows[split]
        if split not in self._encoded:
            self._encoded[split] = self._objective.encode(rows)
        size = max(1, ROWS_PER_BATCH // num_passes)
        return self._objective.score(model, rows, self._encoded[split], seed=seed, rows_per_batch=size)

    def base_score(self, split: Split, *, num_passes: int = 1) -> SeedScore:
        """The frozen base on the rows of `split`: what new experts, whose output starts at zero, would score.

        An encoder's base has no answer without its head. So the head alone is trained, as every trial of the first seed trains it.
        """
        if split not in self._base_scores:
            if self.head.modules:
                with HeadAlone(self, self._seed, split=split, num_passes=num_passes) as alone:
                    alone.train(lambda _rung: True)
                    self._base_scores[split] = alone.score()
            else:
                self._base_scores[split] = self.score(self.model, seed=0, split=split, num_passes=num_passes)
        return self._base_scores[split]


_kept: dict[str, Bench] = {}  # one at most


def bench_of(spec: StudySpec, model: str) -> Bench:
    """The bench of this process; another study's is let go of."""
    key = f"{spec.digest}/{model}"
    if key not in _kept:
        _kept.clear()
        _kept[key] = Bench(spec, model)
    return _kept[key]


def forget() -> None:
    """Load the base anew for the next trial: this one's may be half adapted."""
    _kept.clear()
