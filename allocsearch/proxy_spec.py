"""The `proxy` section of a study: how an allocation is scored."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from allocsearch.space_spec import Closed, Positive

Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


class ProxySpec(Closed):
    """The short fine-tuning that scores an allocation."""

    train_rows: Positive = 480
    """Rows of the training split that a seed trains on; which ones depends on the seed alone."""

    search_rows: Positive = 512
    """Rows that the search scores on, the same for all trials."""

    test_rows: Positive = 1024
    """Rows that a confirmation scores on; the search never sees them."""

    batch_size: Positive = 16
    """Rows of an optimiser step."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Passes over the training rows."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    """Of AdamW, at its highest."""

    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of AdamW."""

    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""

    alpha: Literal["2r"] | Annotated[float, Field(gt=0)] = "2r"
    """LoRA's α, or `2r` for twice each expert's rank, so that rank is not confounded with step size."""

    aux_loss_weight: Annotated[float, Field(ge=0)] = 1e-3
    """Of the routers' balance loss."""

    max_tokens: Annotated[Positive, Field(ge=8)] = 256
    """Longest row in tokens."""

    max_new_tokens: Positive = 64
    """Longest answer of a task that generates."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the frozen base."""

    seeds: tuple[Seed, ...] = (0,)
    """Each allocation is trained once with each, and scored by their mean."""

    rungs: tuple[Positive, ...] = ()
    """Training steps at which a trial is scored before its end, rising."""

    router_statistics: bool = False
    """Note with every trial how its routers share the tokens, which costs a little of the scoring's time."""

    @model_validator(mode="after")
    def _has_seeds(self) -> "ProxySpec":
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"`seeds` must be distinct and at least one, but got {list(self.seeds)}")
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"`rungs` must be rising training steps, but got {list(self.rungs)}")
        return self

    @property
    def num_steps(self) -> int:
        """Optimiser steps of one seed."""
        return max(1, round(self.train_rows * self.epochs / self.batch_size))
