"""The training loop: exact under gradient accumulation and on several devices, and resumed without a trace.

A step's loss is the mean over all of its batch's right tokens, however the batch is split: each pass weighs by its share of them, and so
does its balance loss.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from allocsearch.core.errors import InputError
from allocsearch.moelora import balance_loss
from allocsearch.training import checkpoint
from allocsearch.training.accumulation import dealt
from allocsearch.training.collate import EncodedExample
from allocsearch.training.objective import Objective
from allocsearch.training.schedule import warm_up_then_decay
from allocsearch.training.splits import batches
from allocsearch.tuning import sharding
from allocsearch.tuning.settings import MAX_GRAD_NORM, WARMUP_SHARE, WEIGHT_DECAY, Settings


@dataclass(frozen=True, slots=True)
class Progress:
    """One step that is done; `loss` in nats per right token (per row under a head), without the balance loss."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where and how often the training is kept, and what a later one must share with it."""

    path: Path
    every: int
    identity: dict[str, Any]


@dataclass(frozen=True)
class Trainer:
    """A model on its devices with its rows.

    Attributes:
        accelerator: accelerate's view of the processes.
        model: the adapted model, whole on each process or sharded over all.
        objective: of its kind.
        encoded: the training rows.
        settings: how to train.
        aux_weight: of the balance loss; 0 where the router has none.
    """

    accelerator: Any
    model: Any
    objective: Objective
    encoded: Sequence[EncodedExample]
    settings: Settings
    aux_weight: float

    def train(self, kept: Checkpoints, *, stored: checkpoint.Stored | None = None, report: Callable[[Progress], None]) -> float | None:
        """Train to the last step; returns its loss, or None where `stored`, from which it goes on, was there already."""
        optimiser = torch.optim.AdamW(self._parameters, lr=self.settings.learning_rate, weight_decay=WEIGHT_DECAY)
        done = 0
        if stored is not None:
            done = checkpoint.restore(stored, self.model, optimiser)
            stored.tensors.clear()  # three times the trained parameters, to which callers would hold on for hours
        replicated = self.accelerator.num_processes > 1 and not sharding.is_sharded(self.model)
        wrapped = self.accelerator.prepare_model(self.model) if replicated else self.model
        num_steps = self.settings.num_steps(len(self.encoded))
        factor = warm_up_then_decay(num_steps, WARMUP_SHARE)
        order = batches(len(self.encoded), self.settings.batch_size, seed=self.settings.seed, num_steps=num_steps)
        wrapped.train()
        loss = None
        for step, rows in enumerate(islice(order, done, None), start=done + 1):
            rate = self.settings.learning_rate * factor(step - 1)
            loss = self._step(wrapped, optimiser, rows, rate=rate)
            if not math.isfinite(loss):
                raise InputError(f"the loss must be finite, but it is {loss} at step {step}: lower --learning-rate and start again")
            if step % kept.every == 0 or step == num_steps:
                self._keep(kept, optimiser, step=step)
            report(Progress(step, num_steps, loss, rate))
        return loss

    def _keep(self, kept: Checkpoints, optimiser: torch.optim.Optimizer, *, step: int) -> None:
        tensors = checkpoint.tensors_of(self.model, optimiser)
        if self.accelerator.is_main_process:
            checkpoint.save(kept.path, tensors, step=step, identity=kept.identity)

    @property
    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(checkpoint.trained_parameters(self.model).values())

    def _step(self, wrapped: Any, optimiser: torch.optim.Optimizer, rows: list[int], *, rate: float) -> float:
        """One optimiser step; returns the batch's mean loss before it."""
        total = self._backward(wrapped, [self.encoded[row] for row in rows])
        if not torch.isfinite(total):
            return total.item()
        for group in optimiser.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return total.item()

    def _backward(self, wrapped: Any, batch: list[EncodedExample]) -> torch.Tensor:
        """Gradients of the whole batch's mean loss, which is returned: the same number on every process.

        Passes and processes deal the rows out like cards, so four passes of one process see what two of each of two processes see.
        """
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        parts = processes * self.settings.gradient_accumulation
        passes = dealt(self.objective, batch, parts)
        total = torch.zeros((), device=self.accelerator.device)
        for first in range(rank, parts, processes):
            part, is_last = passes[first], first + processes >= parts
            with nullcontext() if is_last else self._without_exchange(wrapped):
                loss = self.objective.loss(wrapped, part.rows)
                balance = self.aux_weight * balance_loss(self.model) if self.aux_weight else 0.0
                # Processes average their gradients, so the sum over all needs their number.
                ((loss + balance) * part.share * processes).backward()
            total += loss.detach() * part.share
        return self.accelerator.reduce(total, "sum") if processes > 1 else total

    def _without_exchange(self, wrapped: Any) -> AbstractContextManager[Any]:
        return sharding.without_exchange(self.model) if sharding.is_sharded(self.model) else self.accelerator.no_sync(wrapped)
