"""A study's scored warm starts: the base is loaded once, a few training batches are run, and each score is timed."""

import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import torch

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget
from allocsearch.core.geometry import ModelShape
from allocsearch.models import load_base
from allocsearch.scores import oneshot
from allocsearch.scores.probe import Practice, Probe
from allocsearch.scores.table import SCORES, Needs
from allocsearch.spec import StudySpec
from allocsearch.training.collate import Batch, collate, encode
from allocsearch.training.examples import Task
from allocsearch.training.splits import select
from allocsearch.training.tasks import load_task

NUM_BATCHES: Final = 4
NUM_ROWS: Final = 128
"""Search rows that one-shot scores look at: with all of them, scoring would take longer than training."""


@dataclass(frozen=True, slots=True)
class ScoredStart:
    """An allocation by one score, what was scored (every layer, or the allocation as a whole), and what it took.

    `allocation` is None where the budget has no room for it.
    """

    name: str
    allocation: Allocation | None
    scores: tuple[float, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` reads them back."""
        text = None if self.allocation is None else str(self.allocation)
        return {"name": self.name, "allocation": text, "scores": list(self.scores), "seconds": self.seconds}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ScoredStart":
        """Read what `to_json` wrote."""
        text = data["allocation"]
        allocation = None if text is None else Allocation.parse(text)
        return cls(data["name"], allocation, tuple(data["scores"]), data["seconds"])


def scored_starts(names: Sequence[str], spec: StudySpec, *, model: str, shape: ModelShape, budget: Budget) -> tuple[ScoredStart, ...]:
    """The starts of those names, on the device that this process sees. Without names nothing is loaded."""
    if not names:
        return ()
    probe = _probe(spec, {SCORES[name].needs for name in names}, model=model, shape=shape)
    return tuple(scored_start(name, probe, budget=budget) for name in names)


def scored_start(name: str, probe: Probe, *, budget: Budget) -> ScoredStart:
    """The start of that name on a loaded model."""
    started = time.perf_counter()
    allocation, scores = SCORES[name].start(probe, budget)
    return ScoredStart(name, allocation, scores, time.perf_counter() - started)


def one_shot_scores(allocations: Sequence[Allocation], spec: StudySpec, *, model: str, shape: ModelShape) -> tuple[float, ...]:
    """Minus the NLL that a super-adapter of `oneshot` gives each allocation: what `calibrate` correlates with the proxy's results."""
    return oneshot.scores(_probe(spec, {"practice"}, model=model, shape=shape), allocations)


def _probe(spec: StudySpec, needs: AbstractSet[Needs], *, model: str, shape: ModelShape) -> Probe:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_base(model, dtype=spec.proxy.dtype, device=device, revision=spec.revision)
    routing = spec.routing.routing()
    task = load_task(spec.task.source()) if needs - {"weights"} else None
    batches = _batches(spec, task, loaded.tokenizer) if task is not None and "batches" in needs else ()
    practice = _practice(spec, task, loaded.tokenizer, shape=shape) if task is not None and "practice" in needs else None
    return Probe(loaded.model, shape, routing, batches, practice)


def _practice(spec: StudySpec, task: Task, tokenizer: Any, *, shape: ModelShape) -> Practice:
    proxy = spec.proxy
    rows = select(task.train, proxy.train_rows, seed=proxy.seeds[0]), task.search[: min(NUM_ROWS, proxy.search_rows)]
    train, search = (encode(part, tokenizer, max_tokens=proxy.max_tokens) for part in rows)
    space = spec.space.template().bind(shape, spec.routing.routing())
    return Practice(space, proxy, train, search, task.metric, tokenizer.pad_token_id)


def _batches(spec: StudySpec, task: Task, tokenizer: Any) -> tuple[Batch, ...]:
    """The first rows that the first seed trains on."""
    size = spec.proxy.batch_size
    rows = select(task.train, NUM_BATCHES * size, seed=spec.proxy.seeds[0])
    encoded = encode(rows, tokenizer, max_tokens=spec.proxy.max_tokens)
    parts = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    return tuple(collate(part, pad_id=tokenizer.pad_token_id, gold_only=True) for part in parts)
