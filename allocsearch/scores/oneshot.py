"""One-shot scores: a super-adapter that holds all allocations is trained once, and each is scored by slicing it.

As in single-path one-shot search (arXiv 1904.00420), every step trains one allocation, drawn uniformly: here among those that are to be
scored. Experts that two allocations share are the same weights (`moelora.slicing`), so a training of a few times the proxy's length stands
in for one training per allocation. AdamW's momentum moves experts a little in steps that they take no part in.

What an allocation scores in company is not what it scores by itself. So it is used as a prior alone, a warm start, until `calibrate` has
measured that its ranks agree with the proxy's. Both look at search rows, so part of that agreement is luck with rows.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from peft import get_peft_model

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget
from allocsearch.core.errors import InfeasibleError, InputError
from allocsearch.core.plans import covering
from allocsearch.moelora import balance_loss
from allocsearch.moelora.slicing import act_as
from allocsearch.scores.probe import Practice, Probe
from allocsearch.training.adapter import adapter_config
from allocsearch.training.collate import by_length, collate
from allocsearch.training.likelihood import choice_log_probs, completion_loss
from allocsearch.training.schedule import warm_up_then_decay
from allocsearch.training.splits import batches
from allocsearch.transformers_log import adapting

STEPS_FACTOR: Final = 3
"""Training steps, in those of the proxy."""

NUM_CANDIDATES: Final = 64
_ROWS_PER_BATCH: Final = 32


def start(probe: Probe, budget: Budget) -> tuple[Allocation | None, tuple[float, ...]]:
    """The best by one-shot score of random allocations that use the budget up, and its score; None where none fits."""
    practice = _practice(probe)
    try:
        points = practice.space.samples(budget, NUM_CANDIDATES, key=f"{practice.seed}/one-shot")
    except InfeasibleError:
        return None, ()
    candidates = [practice.space.decode(point) for point in points]
    found = scores(probe, candidates)
    best = max(range(len(candidates)), key=found.__getitem__)
    return candidates[best], (found[best],)


def scores(probe: Probe, allocations: Sequence[Allocation]) -> tuple[float, ...]:
    """Minus the mean NLL in nats of the practice's search rows under each allocation, in order: larger is better.

    A score depends on all of the allocations, since they are trained together. The model comes back as it was.

    Raises:
        InputError: where no allocation has an expert, with a router per block, or where the probe brings no practice.
    """
    practice = _practice(probe)
    if probe.routing.per_block:
        raise InputError(f"one-shot scores need a router per linear, but got {probe.routing.router!r}: leave `one-shot` out")
    trained = [allocation for allocation in allocations if not all(plan.is_frozen for plan in allocation)]
    if not trained:
        raise InputError(f"one-shot scores need an allocation with an expert, but got {len(allocations)} without any")
    with _super_adapter(probe, practice, covering(allocations)) as model:
        _train(model, practice, trained)
        return tuple(-_mean_nll(model, practice, allocation) for allocation in allocations)


def _practice(probe: Probe) -> Practice:
    if probe.practice is None:
        raise InputError("a score that trains needs rows to train and to score on, but the probe brings no practice")
    return probe.practice


@contextmanager
def _super_adapter(probe: Probe, practice: Practice, allocation: Allocation) -> Iterator[Any]:
    proxy = practice.proxy
    config = adapter_config(allocation, probe.routing, alpha=proxy.alpha, aux_loss_weight=proxy.aux_loss_weight, seed=practice.seed)
    with adapting():
        model = get_peft_model(probe.model, config)
    try:
        yield model
    finally:
        model.unload()


def _train(model: Any, practice: Practice, allocations: Sequence[Allocation]) -> None:
    proxy, num_steps = practice.proxy, STEPS_FACTOR * practice.proxy.num_steps
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=proxy.learning_rate, weight_decay=proxy.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warm_up_then_decay(num_steps, proxy.warmup_share))
    rng = random.Random(f"{practice.seed}/one-shot/steps")  # noqa: S311 - not a secret
    model.train()
    for rows in batches(len(practice.train), proxy.batch_size, seed=practice.seed, num_steps=num_steps):
        act_as(model, rng.choice(allocations))
        batch = collate([practice.train[row] for row in rows], pad_id=practice.pad_id, gold_only=True).to(model.device)
        loss = completion_loss(batch, model(**batch.inputs, use_cache=False).logits)
        if model.peft_config["default"].balances:
            loss = loss + proxy.aux_loss_weight * balance_loss(model)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, proxy.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)


@torch.inference_mode()
def _mean_nll(model: Any, practice: Practice, allocation: Allocation) -> float:
    """Of the right one among a row's choices, or per token of the right text: nothing is generated."""
    act_as(model, allocation)
    model.eval()
    total = 0.0
    for rows in by_length(practice.search, _ROWS_PER_BATCH):
        batch = collate([practice.search[row] for row in rows], pad_id=practice.pad_id, gold_only=practice.metric != "choice")
        batch = batch.to(model.device)
        logits = model(**batch.inputs, use_cache=False).logits
        if practice.metric == "choice":
            total -= choice_log_probs(batch, logits).gather(1, batch.gold[:, None]).sum().item()
        else:
            total += completion_loss(batch, logits).item() * len(rows)
    return total / len(practice.search)
