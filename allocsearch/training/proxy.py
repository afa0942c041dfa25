"""The proxy's training of one seed: the base with one allocation's experts, or with its head alone."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from peft import get_peft_model

from allocsearch.core.trial import Assignment, RungScore, SeedScore, Split
from allocsearch.moelora import balance_loss
from allocsearch.moelora.pooling import MeanPooling
from allocsearch.moelora.statistics import router_statistics, watch_routers
from allocsearch.training.adapter import adapter_config
from allocsearch.training.classify import draw_head, restored_head
from allocsearch.training.collate import EncodedExample
from allocsearch.training.schedule import warm_up_then_decay
from allocsearch.training.splits import batches
from allocsearch.transformers_log import adapting

if TYPE_CHECKING:  # a bench trains the head alone, for the frozen base's score
    from allocsearch.training.bench import Bench


class NonFiniteError(ArithmeticError):
    """The loss left the finite numbers; the same trial would do so again."""


class StoppedEarly(Exception):  # noqa: N818 - an outcome, not an error
    """The scheduler ended the trial at a rung."""


class Keeper(Protocol):
    """Keeps a training that may be broken off."""

    def restore(self, model: Any, optimiser: torch.optim.Optimizer) -> int:
        """Put back what an earlier attempt had come to; returns how many steps are done."""
        ...

    def trained_on(self, tokens: int) -> None:
        """Take note of a batch's tokens, padding not counted."""
        ...

    def step_done(self, step: int, model: Any, optimiser: torch.optim.Optimizer) -> None:
        """Take note, after a step and the report at it."""
        ...


class Training:
    """A model in training on one seed's rows. Subclasses put the trained parts on, and take them off again at the end."""

    model: Any

    def __init__(self, bench: "Bench", seed: int, *, split: Split, rungs: tuple[int, ...] = (), num_passes: int = 1) -> None:
        self._num_passes = num_passes
        self._bench, self._seed, self._split, self._rungs = bench, seed, split, rungs
        self._aux_weight = 0.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def train(self, report: Callable[[RungScore], bool], keeper: Keeper | None = None) -> None:
        """Raises `NonFiniteError` at the first step whose loss is not finite, and `StoppedEarly` where a rung says so."""
        proxy, bench = self._bench.proxy, self._bench
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not parameters:
            return  # a frozen allocation has nothing to train
        optimiser = torch.optim.AdamW(parameters, lr=proxy.learning_rate, weight_decay=proxy.weight_decay)
        done = 0 if keeper is None else keeper.restore(self.model, optimiser)
        factor = warm_up_then_decay(proxy.num_steps, proxy.warmup_share)
        encoded = bench.train_encoded(self._seed)
        self.model.train()
        order = batches(len(encoded), proxy.batch_size, seed=self._seed, num_steps=proxy.num_steps)
        for step, rows in enumerate(islice(order, done, None), start=done + 1):
            batch = [encoded[row] for row in rows]
            loss = self._backward(batch)
            if keeper is not None:
                keeper.trained_on(sum(len(example.prompt) + len(example.completions[example.gold]) for example in batch))
            if not math.isfinite(loss):
                raise NonFiniteError(f"the loss must be finite, but it is {loss} at step {step} of seed {self._seed}")
            torch.nn.utils.clip_grad_norm_(parameters, proxy.max_grad_norm)
            for group in optimiser.param_groups:
                group["lr"] = proxy.learning_rate * factor(step - 1)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if step in self._rungs and step < proxy.num_steps:
                at = self.score()
                if not report(RungScore(self._seed, step, at.accuracy, at.mean_nll)):
                    raise StoppedEarly
                self.model.train()
            if keeper is not None:
                keeper.step_done(step, self.model, optimiser)

    def _backward(self, batch: Sequence[EncodedExample]) -> float:
        """Gradients of the batch's loss, which is returned, the balance loss included."""
        total = 0.0
        for part in self._bench.dealt(batch, self._num_passes):
            loss = self._bench.loss(self.model, part.rows)
            if self._aux_weight:
                loss = loss + self._aux_weight * balance_loss(self.model)
            (loss * part.share).backward()
            total += part.share * loss.item()
        return total

    def score(self) -> SeedScore:
        """The rows of the split, as the model is now."""
        return self._bench.score(self.model, seed=self._seed, split=self._split, num_passes=self._num_passes)

    def score_and_watch(self) -> tuple[SeedScore, dict[str, float]]:
        """The score, and what the routers did meanwhile."""
        with watch_routers(self.model) as watched:
            scored = self.score()
        return scored, router_statistics(self.model, watched)


class Adapted(Training):
    """The base with one allocation's experts."""

    def __init__(self, bench: "Bench", assignment: Assignment, seed: int, *, num_passes: int = 1) -> None:
        super().__init__(bench, seed, split=assignment.split, rungs=assignment.rungs, num_passes=num_passes)
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
        with adapting():
            self.model = get_peft_model(bench.model, config)
        self._open.callback(self.model.unload)


class HeadAlone(Training):
    """The base without experts: only its classification head is trained."""

    def __init__(self, bench: "Bench", seed: int, *, split: Split, num_passes: int = 1) -> None:
        super().__init__(bench, seed, split=split, num_passes=num_passes)
        self.model = bench.model
        self._open.enter_context(restored_head(bench.model, bench.head.modules))
        if bench.head.pooling == "mean":
            self._open.callback(MeanPooling(bench.model, lambda: True).remove)
        draw_head(bench.model, bench.head.modules, seed=seed)
        for name in bench.head.modules:
            bench.model.get_submodule(name).requires_grad_(requires_grad=True)
