"""One training of a table: the proxy's own evaluator, which also scores the rows of the test split before the experts come off."""

import time
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from tabular_pool import Entry

from allocsearch.backends.evaluation import outcome_of
from allocsearch.core.allocation import Allocation
from allocsearch.core.trial import Assignment, Measured, RungScore, SeedScore
from allocsearch.training.finetune import ProxyEvaluator
from allocsearch.training.splits import batches


@dataclass(frozen=True)
class TableEvaluator(ProxyEvaluator):
    """The proxy; the last training's score on the test split is left in `tested`, where `artifacts` is set."""

    tested: list[SeedScore] = field(default_factory=list)

    def checkpoint(self, assignment: Assignment) -> None:
        """None: each training is short, and a table that is broken off goes on after its last part."""

    def keep(self, adapted: Any, assignment: Assignment) -> str:
        self.tested[:] = [self.bench.score(adapted.model, seed=assignment.seeds[0], split="test")]
        return ""

    def step_tokens(self, seed: int) -> list[int]:
        """Training tokens fed to the model after each step, without padding; the same for every allocation."""
        encoded, proxy = self.bench.train_encoded(seed), self.spec.proxy
        lengths = [len(example.prompt) + max(0, len(example.completions[example.gold]) - 1) for example in encoded]
        order = batches(len(encoded), proxy.batch_size, seed=seed, num_steps=proxy.num_steps)
        return list(accumulate(sum(lengths[row] for row in rows) for rows in order))


def trained(evaluator: TableEvaluator, entry: Entry, *, seed: int) -> dict[str, Any]:
    """One allocation with one seed, as the JSON of its part file."""
    spec, begun = evaluator.spec, time.process_time()  # wall time would measure the machine's other load
    rungs: list[dict[str, float]] = []

    def note(step: int, accuracy: float, nll: float) -> bool:
        rungs.append({"step": step, "accuracy": accuracy, "nll": nll, "cpu_seconds": time.process_time() - begun})
        return True

    def report(rung: RungScore) -> bool:
        return note(rung.step, rung.accuracy, rung.nll)

    allocation, routing = Allocation.parse(entry.allocation), spec.routing.routing()
    outcome = outcome_of(evaluator, Assignment(entry.number, allocation, routing, (seed,), spec.proxy.rungs), report)
    record = {"number": entry.number, "allocation": entry.allocation, "seed": seed, "rungs": rungs}
    if not isinstance(outcome, Measured):
        return {**record, "failed": str(outcome)}
    note(spec.proxy.num_steps, outcome.accuracy, outcome.nll)
    for tested in evaluator.tested:
        rungs[-1] |= {"test_accuracy": tested.accuracy, "test_nll": tested.mean_nll}
    return {**record, "step_tokens": evaluator.step_tokens(seed)}
