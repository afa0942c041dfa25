"""A study's scored warm starts: the base is loaded once, a few training batches are run, and each score is timed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget
from allocsearch.core.geometry import ModelShape
from allocsearch.models import load_base
from allocsearch.scores.probe import Probe
from allocsearch.scores.table import SCORES
from allocsearch.spec import StudySpec
from allocsearch.training.collate import Batch, collate, encode
from allocsearch.training.splits import select
from allocsearch.training.tasks import load_task

NUM_BATCHES: Final = 4


@dataclass(frozen=True, slots=True)
class ScoredStart:
    """An allocation by one score, what the score was, and what it took. `allocation` is None where the budget has no room for it."""

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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_base(model, dtype=spec.proxy.dtype, device=device, revision=spec.revision)
    routing = spec.routing.routing()
    batches = _batches(spec, loaded.tokenizer) if any(SCORES[name].needs_batches for name in names) else ()
    probe = Probe(loaded.model, shape, routing, batches)
    return tuple(scored_start(name, probe, budget=budget) for name in names)


def scored_start(name: str, probe: Probe, *, budget: Budget) -> ScoredStart:
    """The start of that name on a loaded model."""
    started = time.perf_counter()
    scores = SCORES[name].layers(probe)
    allocation = SCORES[name].allot(scores, shape=probe.shape, routing=probe.routing, budget=budget)
    return ScoredStart(name, allocation, scores, time.perf_counter() - started)


def _batches(spec: StudySpec, tokenizer: Any) -> tuple[Batch, ...]:
    """The first rows that the first seed trains on."""
    size = spec.proxy.batch_size
    rows = select(load_task(spec.task.source()).train, NUM_BATCHES * size, seed=spec.proxy.seeds[0])
    encoded = encode(rows, tokenizer, max_tokens=spec.proxy.max_tokens)
    parts = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    return tuple(collate(part, pad_id=tokenizer.pad_token_id, gold_only=True) for part in parts)
