"""The proxy: a short fine-tuning of one allocation, from an assignment to its outcome.

All allocations of a study share, per seed, the training rows, their order and the evaluation rows, and experts start equal wherever
two allocations share them. The seed moves the NLL several times as much as the allocation does; most of that cancels in pairs.

A trial that runs out of memory is trained once more, with its batches dealt out over passes of a few rows. What that changes is said in
`accumulation`. Where even that does not fit, the allocation is infeasible on this device. A trial that was broken off by its worker's death
goes on from its checkpoint.
"""

import os
import socket
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError

from allocsearch import logs
from allocsearch.core.errors import InputError, MachineError, gist, line_of
from allocsearch.core.ports import ArtifactStore, Report
from allocsearch.core.trial import Assignment, Failed, Infeasible, Measured, Outcome, RungScore, Stopped, Trial
from allocsearch.models import BUILTIN_MODELS, model_digest
from allocsearch.spec import StudySpec
from allocsearch.training import memory
from allocsearch.training.bench import Bench, bench_of, forget
from allocsearch.training.checkpoint import UnfitError
from allocsearch.training.proxy import Adapted, NonFiniteError, StoppedEarly
from allocsearch.training.trial_checkpoint import Progress, TrialCheckpoint, discard, identity

_PASSES_WITH_LITTLE_MEMORY: Final = 8
"""Activations shrink to an eighth. Weights and optimiser state stay, so many more passes would cost time and save little."""


@dataclass(frozen=True)
class ProxyEvaluator:
    """The Evaluator port: trains and scores on the device that its process sees.

    Attributes:
        spec: the study's.
        model: a folder, a hub id or a built-in name; the latter two are fetched where a node does not have them yet, once per node.
        artifacts: where to leave trained weights, and checkpoints of the trials under way; None keeps none.
        prefix: of the weights' names, unique to the study.
        weights: the digest that a built-in model must have, as its sources may hold different weights; empty asks for none.
    """

    spec: StudySpec
    model: str
    artifacts: ArtifactStore | None = None
    prefix: str = ""
    weights: str = ""

    def __call__(self, assignment: Assignment, report: Report) -> Outcome:
        """Train every seed and score it on the search rows."""
        kept = self.checkpoint(assignment)
        attempt, outcome = self._first_attempt(assignment, report, kept)
        if isinstance(outcome, Infeasible) and attempt.progress.num_passes == 1:
            memory.release()
            if kept is not None:
                kept.remove()
            again = Progress(num_passes=_PASSES_WITH_LITTLE_MEMORY, seconds=outcome.seconds, tokens=outcome.tokens)
            outcome = _Attempt(self, assignment, report, kept, again).run()
        if kept is not None:
            kept.remove()
        return outcome

    def _first_attempt(self, assignment: Assignment, report: Report, kept: TrialCheckpoint | None) -> tuple["_Attempt", Outcome]:
        attempt = _Attempt(self, assignment, report, kept, (kept and kept.read()) or Progress())
        try:
            return attempt, attempt.run()
        except UnfitError as error:
            logs.note(f"the checkpoint of trial {assignment.number} is passed over, and the trial begins anew: {error}")
            attempt = _Attempt(self, assignment, report, kept, Progress())
            return attempt, attempt.run()

    @property
    def bench(self) -> Bench:
        """The base and the rows as this process has them.

        Raises:
            MachineError: where they cannot be loaded, whatever the reason: no allocation has had a part in that.
        """
        try:
            self._check_weights()
            return bench_of(self.spec, self.model)
        except Exception as error:  # the reason: four libraries load a base, each with errors of its own
            raise MachineError(f"the base and the data must load on {socket.gethostname()}, but: {line_of(error)}") from error

    def _check_weights(self) -> None:
        if self.weights and self.model in BUILTIN_MODELS and (found := model_digest(self.model)) != self.weights:
            raise InputError(
                f"a study's workers must train on the same weights, but {self.model!r} is {found[:12]} here and {self.weights[:12]} at its "
                "driver: copy the driver's, from models/ in its ALLOCSEARCH_HOME"
            )

    def checkpoint(self, assignment: Assignment) -> TrialCheckpoint | None:
        """Where the trial is kept while it runs; None where there is no place for it."""
        if self.artifacts is None:
            return None
        name = self._name(assignment.number, ".checkpoint")
        own = partial(self._identity, assignment)
        return TrialCheckpoint(self.artifacts, name, own, every_seconds=self.spec.limits.checkpoint_seconds)

    def _identity(self, assignment: Assignment) -> dict[str, Any]:
        return identity(assignment, study=self.spec.digest, model=self.model, weights=self._weights_here())

    def _weights_here(self) -> str:
        """The digest of the base on this node: a folder of the same name may hold others elsewhere, where all else is the driver's."""
        if self.weights and not Path(self.model).is_dir():
            return self.weights
        try:
            return model_digest(self.model, self.spec.revision)
        except (OSError, InputError) as error:
            raise MachineError(f"the base must be one that {socket.gethostname()} can read, but: {error}") from error

    def forget(self, trial: Trial) -> None:
        """Remove the checkpoint of a trial that ended without its worker's doing."""
        if isinstance(trial.outcome, Failed):
            self.discard(self._name(trial.number, ".checkpoint"))

    def discard(self, name: str) -> None:
        """Remove what is stored under `name`; see `trial_checkpoint.discard`."""
        if self.artifacts is not None:
            discard(self.artifacts, name)

    def keep(self, adapted: Adapted, assignment: Assignment) -> str:
        """Store the first seed's weights, under a name that a second attempt overwrites."""
        name = self._name(assignment.number)
        assert self.artifacts is not None
        try:
            with tempfile.TemporaryDirectory(prefix="allocsearch-") as folder:
                adapted.model.save_pretrained(folder)
                self.artifacts.write(name, Path(folder) / "adapter_model.safetensors")
        except (OSError, SafetensorError) as error:
            raise MachineError(
                f"the weights of a trial must be written, but on {socket.gethostname()}: {error}: make room in {tempfile.gettempdir()} and "
                "where the artifacts are kept"
            ) from error
        return name

    def _name(self, number: int, of: str = "") -> str:
        return f"{self.prefix}-trial-{number:06d}{of}.safetensors"


class _Attempt:
    """One try at a trial, from where an earlier one was broken off.

    Attributes:
        progress: what there is to show so far.
    """

    def __init__(
        self, evaluator: ProxyEvaluator, assignment: Assignment, report: Report, kept: TrialCheckpoint | None, progress: Progress
    ) -> None:
        self.progress = progress
        self._evaluator, self._assignment, self._report, self._kept = evaluator, assignment, report, kept
        self._started = time.perf_counter()

    def run(self) -> Outcome:
        """Train what is missing; `Infeasible` where memory did not suffice."""
        worker = f"{socket.gethostname()}/{os.getpid()}"
        try:
            self._train()
        except StoppedEarly:
            return Stopped(self.progress.rungs, self._seconds, worker, tokens=self.progress.tokens)
        except NonFiniteError as error:
            return Failed(str(error), self._seconds, worker, tokens=self.progress.tokens)
        except Exception as error:  # the reason: memory runs out as three kinds of error; all others are raised again
            if not memory.is_out_of_memory(error):
                raise
            reason = f"out of memory in passes of {self._micro_batch} rows: {gist(error)}"
            return Infeasible(reason, self._seconds, worker, tokens=self.progress.tokens)
        done = self.progress
        return Measured(done.scores, self._seconds, worker, done.artifact, done.base, done.rungs, done.statistics, tokens=done.tokens)

    def restore(self, model: Any, optimiser: torch.optim.Optimizer) -> int:
        """See `Keeper`."""
        return 0 if self._kept is None else self._kept.restore(model, optimiser)

    def trained_on(self, tokens: int) -> None:
        """See `Keeper`."""
        self._note(tokens=self.progress.tokens + tokens)

    def step_done(self, step: int, model: Any, optimiser: torch.optim.Optimizer) -> None:
        """See `Keeper`."""
        if self._kept is not None:
            self._kept.step_done(step, model, optimiser, replace(self.progress, seconds=self._seconds))

    def _train(self) -> None:
        for rung in self.progress.rungs:
            self._report(rung)  # a new referee has not heard of them; that the trial went on from there is settled
        self._note(statistics={"micro_batch": self._micro_batch, **self.progress.statistics})
        own = self._evaluator.bench
        if self._assignment.score_base and self.progress.base is None:
            self._note(base=own.base_score(self._assignment.split, num_passes=self.progress.num_passes))
        for seed in self._assignment.seeds[len(self.progress.scores) :]:
            with _adapted(own, self._assignment, seed, num_passes=self.progress.num_passes) as adapted:
                adapted.train(self._at_rung, self)
                self._score(adapted)

    def _score(self, adapted: Adapted) -> None:
        evaluator, first = self._evaluator, not self.progress.scores
        scored, noted = adapted.score_and_watch() if first and evaluator.spec.proxy.router_statistics else (adapted.score(), {})
        if first and self._assignment.keep_weights and evaluator.artifacts is not None:
            self._note(artifact=evaluator.keep(adapted, self._assignment))
        self._note(scores=(*self.progress.scores, scored), statistics={**self.progress.statistics, **noted})

    def _at_rung(self, rung: RungScore) -> bool:
        self._note(rungs=(*self.progress.rungs, rung))
        return self._report(rung)

    def _note(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)

    @property
    def _seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self._started

    @property
    def _micro_batch(self) -> int:
        """Rows in the largest pass."""
        return -(-self._evaluator.spec.proxy.batch_size // self.progress.num_passes)


def _adapted(own: Bench, assignment: Assignment, seed: int, *, num_passes: int) -> Adapted:
    try:
        return Adapted(own, assignment, seed, num_passes=num_passes)
    except BaseException:
        forget()  # some of the experts may stand in the base
        raise
