"""The proxy: a short fine-tuning of one allocation, from an assignment to its outcome.

All allocations of a study share, per seed, the training rows, their order and the evaluation rows, and experts start equal wherever
two allocations share them. The seed moves the NLL several times as much as the allocation does; most of that cancels in pairs.

A trial that runs out of memory is trained once more, with its batches dealt out over passes of a few rows. What that changes is said in
`accumulation`. Where even that does not fit, the allocation is infeasible on this device.
"""

import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from allocsearch.core.ports import ArtifactStore, Report
from allocsearch.core.trial import Assignment, Failed, Infeasible, Measured, Outcome, RungScore, SeedScore, Stopped
from allocsearch.spec import StudySpec
from allocsearch.training import bench, memory
from allocsearch.training.proxy import Adapted, NonFiniteError, StoppedEarly

_PASSES_WITH_LITTLE_MEMORY: Final = 8
"""Activations shrink to an eighth. Weights and optimiser state stay, so many more passes would cost time and save little."""


@dataclass(frozen=True)
class ProxyEvaluator:
    """The Evaluator port: trains and scores on the device that its process sees.

    Attributes:
        spec: the study's.
        model: a folder or a hub id, already fetched.
        artifacts: where to leave trained weights; None keeps none.
        prefix: of the weights' names, unique to the study.
    """

    spec: StudySpec
    model: str
    artifacts: ArtifactStore | None = None
    prefix: str = ""

    def __call__(self, assignment: Assignment, report: Report) -> Outcome:
        """Train every seed and score it on the search rows."""
        started = time.perf_counter()
        outcome = self._outcome(assignment, report, num_passes=1, started=started)
        if isinstance(outcome, Infeasible):
            memory.release()
            outcome = self._outcome(assignment, report, num_passes=_PASSES_WITH_LITTLE_MEMORY, started=started)
            memory.release()
        return outcome

    def _outcome(self, assignment: Assignment, report: Report, *, num_passes: int, started: float) -> Outcome:
        """One try; `Infeasible` where memory did not suffice."""
        rungs: list[RungScore] = []
        worker = f"{socket.gethostname()}/{os.getpid()}"

        def at_rung(rung: RungScore) -> bool:
            rungs.append(rung)
            return report(rung)

        try:
            own = bench.bench_of(self.spec, self.model)
            base = own.base_score(assignment.split, num_passes=num_passes) if assignment.score_base else None
            scores, artifact, statistics = self._trained(own, assignment, at_rung, num_passes=num_passes)
        except StoppedEarly:
            return Stopped(tuple(rungs), time.perf_counter() - started, worker)
        except NonFiniteError as error:
            return Failed(str(error), time.perf_counter() - started, worker)
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            reason = f"out of memory in passes of {self._micro_batch(num_passes)} rows: {' '.join(str(error).split())}"[:300]
            return Infeasible(reason, time.perf_counter() - started, worker)
        return Measured(scores, time.perf_counter() - started, worker, artifact, base, tuple(rungs), statistics)

    def _trained(
        self, own: bench.Bench, assignment: Assignment, report: Report, *, num_passes: int
    ) -> tuple[tuple[SeedScore, ...], str | None, dict[str, float]]:
        """A score per seed, the name of the first one's weights, and what was noted on the way."""
        scores: list[SeedScore] = []
        artifact = None
        statistics: dict[str, float] = {"micro_batch": self._micro_batch(num_passes)}
        for seed in assignment.seeds:
            with _adapted(own, assignment, seed, num_passes=num_passes) as adapted:
                adapted.train(report)
                if self.spec.proxy.router_statistics and not scores:
                    scored, noted = adapted.score_and_watch()
                    statistics |= noted
                else:
                    scored = adapted.score()
                scores.append(scored)
                if artifact is None and assignment.keep_weights and self.artifacts is not None:
                    artifact = self._keep(adapted, assignment)
        return tuple(scores), artifact, statistics

    def _micro_batch(self, num_passes: int) -> int:
        """Rows in the largest pass."""
        return -(-self.spec.proxy.batch_size // num_passes)

    def _keep(self, adapted: Adapted, assignment: Assignment) -> str:
        """Store the first seed's weights, under a name that a second attempt overwrites."""
        name = f"{self.prefix}-trial-{assignment.number:06d}.safetensors"
        with tempfile.TemporaryDirectory(prefix="allocsearch-") as folder:
            adapted.model.save_pretrained(folder)
            assert self.artifacts is not None
            self.artifacts.write(name, Path(folder) / "adapter_model.safetensors")
        return name


def _adapted(own: bench.Bench, assignment: Assignment, seed: int, *, num_passes: int) -> Adapted:
    try:
        return Adapted(own, assignment, seed, num_passes=num_passes)
    except BaseException:
        bench.forget()  # some of the experts may stand in the base
        raise
