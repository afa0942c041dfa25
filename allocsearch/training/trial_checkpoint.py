"""What a trial has done so far, kept beside the artifacts, so that a long proxy goes on after its worker's or its node's death.

A checkpoint is one safetensors file: `checkpoint`'s tensors, PyTorch's random generators, and a header in JSON. A trial that is dispatched
again goes on from it, to the same result bit for bit as if nothing had happened, on a CPU and with as many threads. A checkpoint of other
work or other versions, or a broken one, is passed over with a line in the log.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from allocsearch import logs
from allocsearch.core import codec
from allocsearch.core.errors import InputError, MachineError, line_of
from allocsearch.core.ports import ArtifactStore
from allocsearch.core.trial import Assignment, RungScore, SeedScore
from allocsearch.core.versions import package_versions
from allocsearch.training import checkpoint


@dataclass(frozen=True, slots=True)
class Progress:
    """What a trial has to show before its end.

    Attributes:
        num_passes: per batch; a trial that ran out of memory has more than one.
        base: the frozen base's score, where it was asked for.
        scores: of the seeds that are done.
        rungs: what was reported so far, of the seed under way, too.
        artifact: the name of the first seed's weights, once they are kept.
        statistics: what was noted.
        seconds: spent before this attempt.
        tokens: trained on so far, in this attempt, too.
    """

    num_passes: int = 1
    base: SeedScore | None = None
    scores: tuple[SeedScore, ...] = ()
    rungs: tuple[RungScore, ...] = ()
    artifact: str | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    tokens: int = 0


def identity(assignment: Assignment, *, study: str, model: str, weights: str) -> dict[str, Any]:
    """What must be the same for a trial to go on from a checkpoint; whether the base is to be scored may differ.

    `weights` is the digest of the base's.
    """
    work = codec.assignment_to_json(replace(assignment, score_base=False))
    return {"study": study, "model": model, "weights": weights, "assignment": work, "versions": package_versions()}


class TrialCheckpoint:
    """One trial's checkpoint in a store.

    Args:
        store: where the artifacts are.
        name: of the checkpoint there.
        identity: makes the trial's `identity`, once it is needed: most trials are too short for that, and a digest reads the whole base.
        every_seconds: how often to write, at the end of a training step; None for never.
    """

    def __init__(self, store: ArtifactStore, name: str, identity: Callable[[], Mapping[str, Any]], *, every_seconds: float | None) -> None:
        self._store, self._name, self._identity, self._every = store, name, identity, every_seconds
        self._written = time.monotonic()
        self._stored: checkpoint.Stored | None = None

    def read(self) -> Progress | None:
        """What an earlier attempt had done; None where there is nothing to go on from."""
        with tempfile.TemporaryDirectory(prefix="allocsearch-") as folder:
            file = Path(folder) / "checkpoint.safetensors"
            try:
                self._store.read(self._name, file)
            except InputError:
                return None  # the usual case: there is none
            try:
                return self._taken_up(checkpoint.load(file))
            except (KeyError, TypeError, ValueError) as error:  # an InputError is a ValueError
                logs.note(f"the checkpoint {self._name} is passed over, and the trial begins anew: {error}")
                return None

    def _taken_up(self, found: checkpoint.Stored) -> Progress:
        if found.identity != self._identity():
            raise ValueError("it is of other work or other versions")
        progress = _progress_from_json(found.notes)
        self._stored = found
        return progress

    def restore(self, model: Any, optimiser: torch.optim.Optimizer) -> int:
        """Go on with the seed that was under way; returns how many of its steps are done. Every later seed begins at its first."""
        stored, self._stored = self._stored, None
        if stored is None:
            return 0
        step = checkpoint.restore(stored, model, optimiser)
        torch.set_rng_state(stored.tensors["generator/cpu"])
        if torch.cuda.is_available() and "generator/cuda" in stored.tensors:
            torch.cuda.set_rng_state(stored.tensors["generator/cuda"])
        return step

    def step_done(self, step: int, model: Any, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        """Write, where it is time. A disk that is full costs the checkpoint, not the trial."""
        if self._every is None or time.monotonic() - self._written < self._every:
            return
        try:
            self._write(step, model, optimiser, progress)
        except (OSError, MachineError, SafetensorError) as error:
            logs.note(f"the checkpoint {self._name} could not be written: {line_of(error)}; the trial goes on without")
        self._written = time.monotonic()

    def remove(self) -> None:
        """The trial has ended, or begins anew."""
        self._stored = None
        discard(self._store, self._name)

    def _write(self, step: int, model: Any, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
        generators = {"generator/cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["generator/cuda"] = torch.cuda.get_rng_state()
        with tempfile.TemporaryDirectory(prefix="allocsearch-") as folder:
            file = Path(folder) / "checkpoint.safetensors"
            notes = _progress_to_json(progress)
            tensors = {**generators, **checkpoint.tensors_of(model, optimiser)}
            checkpoint.save(file, tensors, step=step, identity=self._identity(), notes=notes)
            self._store.write(self._name, file)


def discard(store: ArtifactStore, name: str) -> None:
    """Remove what is stored under `name`. What cannot be removed takes up room; the trial and the search go on."""
    try:
        store.remove(name)
    except (OSError, MachineError) as error:
        logs.note(f"{name} could not be removed, and stays where the artifacts are: {line_of(error)}")


def _progress_to_json(progress: Progress) -> dict[str, Any]:
    return {
        "num_passes": progress.num_passes,
        "base": None if progress.base is None else _score_to_json(progress.base),
        "scores": [_score_to_json(score) for score in progress.scores],
        "rungs": codec.rungs_to_json(progress.rungs),
        "artifact": progress.artifact,
        "statistics": dict(progress.statistics),
        "seconds": progress.seconds,
        "tokens": progress.tokens,
    }


def _progress_from_json(data: Mapping[str, Any]) -> Progress:
    return Progress(
        num_passes=data["num_passes"],
        base=None if data["base"] is None else codec.score_from_json(data["base"]),
        scores=tuple(codec.score_from_json(score) for score in data["scores"]),
        rungs=codec.rungs_from_json(data["rungs"]),
        artifact=data["artifact"],
        statistics=data["statistics"],
        seconds=data["seconds"],
        tokens=data["tokens"],
    )


def _score_to_json(score: SeedScore) -> dict[str, Any]:
    """As the codec's, but with every digit: an outcome must not show where its trial was interrupted."""
    return {**codec.score_to_json(score), "nll": list(score.nll)}
