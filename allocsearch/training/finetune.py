"""The proxy: a short fine-tuning of one allocation, from an assignment to its outcome.

All allocations of a study share, per seed, the training rows, their order and the evaluation rows, and experts start equal wherever
two allocations share them. The seed moves the NLL several times as much as the allocation does; most of that cancels in pairs.
"""

import math
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from peft import get_peft_model

from allocsearch.core.ports import ArtifactStore, Report
from allocsearch.core.trial import Assignment, Failed, Measured, Outcome, RungScore, SeedScore, Split, Stopped
from allocsearch.models import LoadedBase, load_base
from allocsearch.moelora import balance_loss
from allocsearch.moelora.pooling import MeanPooling
from allocsearch.moelora.statistics import router_statistics, watch_routers
from allocsearch.spec import ProxySpec, StudySpec
from allocsearch.training.adapter import adapter_config
from allocsearch.training.classify import draw_head, num_classes, restored_head
from allocsearch.training.collate import EncodedExample
from allocsearch.training.examples import Example, Task
from allocsearch.training.objective import Objective
from allocsearch.training.schedule import warm_up_then_decay
from allocsearch.training.splits import batches, select
from allocsearch.training.tasks import load_task


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
        bench = _bench(self.spec, self.model)
        worker = f"{socket.gethostname()}/{os.getpid()}"
        scores: list[SeedScore] = []
        rungs: list[RungScore] = []
        artifact = None
        statistics: dict[str, float] = {}
        base = bench.base_score(assignment.split) if assignment.score_base else None

        def at_rung(rung: RungScore) -> bool:
            rungs.append(rung)
            return report(rung)

        try:
            for seed in assignment.seeds:
                with _Adapted(bench, assignment, seed) as adapted:
                    adapted.train(at_rung)
                    if self.spec.proxy.router_statistics and not scores:
                        scored, statistics = adapted.score_and_watch()
                        scores.append(scored)
                    else:
                        scores.append(adapted.score())
                    if artifact is None and assignment.keep_weights and self.artifacts is not None:
                        artifact = self._keep(adapted, assignment)
        except _StoppedEarly:
            return Stopped(tuple(rungs), time.perf_counter() - started, worker)
        except (_NonFiniteError, torch.OutOfMemoryError) as error:
            reason = " ".join(str(error).split())[:300]
            return Failed(reason, time.perf_counter() - started, worker)
        return Measured(tuple(scores), time.perf_counter() - started, worker, artifact, base, tuple(rungs), statistics)

    def _keep(self, adapted: "_Adapted", assignment: Assignment) -> str:
        """Store the first seed's weights, under a name that a second attempt overwrites."""
        name = f"{self.prefix}-trial-{assignment.number:06d}.safetensors"
        with tempfile.TemporaryDirectory(prefix="allocsearch-") as folder:
            adapted.model.save_pretrained(folder)
            assert self.artifacts is not None
            self.artifacts.write(name, Path(folder) / "adapter_model.safetensors")
        return name


class _NonFiniteError(ArithmeticError):
    """The loss left the finite numbers; the same trial would do so again."""


class _StoppedEarly(Exception):  # noqa: N818 - an outcome, not an error
    """The scheduler ended the trial at a rung."""


class _Bench:
    """What a process keeps from trial to trial: the frozen base, the tokenised rows."""

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

    def score(self, model: Any, *, seed: int, split: Split) -> SeedScore:
        rows = self._rows[split]
        if split not in self._encoded:
            self._encoded[split] = self._objective.encode(rows)
        return self._objective.score(model, rows, self._encoded[split], seed=seed)

    def base_score(self, split: Split) -> SeedScore:
        """The frozen base on the rows of `split`: what new experts, whose output starts at zero, would score.

        An encoder's base has no answer without its head. So the head alone is trained, as every trial of the first seed trains it.
        """
        if split not in self._base_scores:
            if self.head.modules:
                with _HeadAlone(self, self._seed, split=split) as alone:
                    alone.train(lambda _rung: True)
                    self._base_scores[split] = alone.score()
            else:
                self._base_scores[split] = self.score(self.model, seed=0, split=split)
        return self._base_scores[split]


_kept: dict[str, _Bench] = {}


def _bench(spec: StudySpec, model: str) -> _Bench:
    """The bench of this process; another study's is let go of."""
    key = f"{spec.digest}/{model}"
    if key not in _kept:
        _kept.clear()
        _kept[key] = _Bench(spec, model)
    return _kept[key]


class _Training:
    """A model in training on one seed's rows. Subclasses put the trained parts on, and take them off again at the end."""

    model: Any

    def __init__(self, bench: _Bench, seed: int, *, split: Split, rungs: tuple[int, ...] = ()) -> None:
        self._bench, self._seed, self._split, self._rungs = bench, seed, split, rungs
        self._aux_weight = 0.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def train(self, report: Callable[[RungScore], bool]) -> None:
        """Raises `_NonFiniteError` at the first step whose loss is not finite, and `_StoppedEarly` where a rung says so."""
        proxy, bench = self._bench.proxy, self._bench
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not parameters:
            return  # a frozen allocation has nothing to train
        optimiser = torch.optim.AdamW(parameters, lr=proxy.learning_rate, weight_decay=proxy.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warm_up_then_decay(proxy.num_steps, proxy.warmup_share))
        encoded = bench.train_encoded(self._seed)
        self.model.train()
        order = batches(len(encoded), proxy.batch_size, seed=self._seed, num_steps=proxy.num_steps)
        for step, rows in enumerate(order, start=1):
            loss = bench.loss(self.model, [encoded[row] for row in rows])
            if self._aux_weight:
                loss = loss + self._aux_weight * balance_loss(self.model)
            if not math.isfinite(loss.item()):
                raise _NonFiniteError(f"the loss must be finite, but it is {loss.item()} at step {step} of seed {self._seed}")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, proxy.max_grad_norm)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            if step in self._rungs and step < proxy.num_steps:
                at = self.score()
                if not report(RungScore(self._seed, step, at.accuracy, at.mean_nll)):
                    raise _StoppedEarly
                self.model.train()

    def score(self) -> SeedScore:
        return self._bench.score(self.model, seed=self._seed, split=self._split)

    def score_and_watch(self) -> tuple[SeedScore, dict[str, float]]:
        """The score, and what the routers did meanwhile."""
        with watch_routers(self.model) as watched:
            scored = self.score()
        return scored, router_statistics(self.model, watched)


class _Adapted(_Training):
    """The base with one allocation's experts."""

    def __init__(self, bench: _Bench, assignment: Assignment, seed: int) -> None:
        super().__init__(bench, seed, split=assignment.split, rungs=assignment.rungs)
        proxy = bench.proxy
        config = adapter_config(
            assignment.allocation,
            assignment.routing,
            alpha=proxy.alpha,
            aux_loss_weight=proxy.aux_loss_weight,
            seed=seed,
            head=bench.head,
        )
        self._aux_weight = proxy.aux_loss_weight if config.balances else 0.0
        self._open.enter_context(restored_head(bench.model, bench.head.modules))
        draw_head(bench.model, bench.head.modules, seed=seed)
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            # PEFT asks transformers under a name that transformers is about to retire.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            self.model = get_peft_model(bench.model, config)
        self._open.callback(self.model.unload)


class _HeadAlone(_Training):
    """The base without experts: only its classification head is trained."""

    def __init__(self, bench: _Bench, seed: int, *, split: Split) -> None:
        super().__init__(bench, seed, split=split)
        self.model = bench.model
        self._open.enter_context(restored_head(bench.model, bench.head.modules))
        if bench.head.pooling == "mean":
            self._open.callback(MeanPooling(bench.model, lambda: True).remove)
        draw_head(bench.model, bench.head.modules, seed=seed)
        for name in bench.head.modules:
            bench.model.get_submodule(name).requires_grad_(requires_grad=True)
