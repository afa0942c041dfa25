"""`MoeLoraConfig`: what a saved adapter needs to be built again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from peft import PeftConfig

from allocsearch.core.allocation import Allocation, LayerPlan
from allocsearch.core.errors import InputError, shown
from allocsearch.core.geometry import Routing
from allocsearch.core.targets import GROUPS
from allocsearch.moelora.pooling import POOLINGS
from allocsearch.moelora.registration import NAME, add_peft_type

THRESHOLD_GRADIENTS: Final = ("straight_through", "none")
_PER_RANK: Final = re.compile(r"^(\d+(?:\.\d+)?)r$")
_parse = lru_cache(maxsize=64)(Allocation.parse)


@dataclass
class MoeLoraConfig(PeftConfig):
    """Settings of a mixture of LoRA experts whose numbers and ranks may differ between layers and targets.

    Attributes:
        allocation: which experts each layer gets, as text: `2x8*8 4x8*8` is eight layers of two experts of rank 8, then eight of four.
        top_k: experts per token, one number or one per layer; more than a layer has means all. Only `topk` uses it.
        router: `topk` (softmax over all, the best k renormalised) or `dense` (softmax over all) per adapted linear; `sigmoid` (every expert
            weighed by itself) or `threshold` (those above a learned threshold) per transformer block, which also gate `parallel` and
            `prompt` experts.
        lora_alpha: expert i is scaled by lora_alpha / r_i. The text `2r` means α = 2 · r_i, that is scaling 2 for every rank.
        aux_loss_weight: weight of the balance loss that training adds to the model's loss. It applies to `topk`: a dense router uses every
            expert for every token, so there is no share of selections to balance.
        target_modules: groups (`attn`), targets (`q`) or the model's own names (`q_proj`) that may carry experts; None: all.
        layers_to_transform: numbers of the layers that may carry experts; None: all. Plans of other layers are dropped, and `allocation`
            is rewritten to say so: it always tells what is there.
        exclude_modules: names (or one regular expression) of modules that stay as they are.
        lora_dropout: dropout of the experts' input; the router always sees all of it.
        init_seed: seed of the initial weights. Two allocations with one seed start equal in the experts that they share.
        swi_x: hidden width of a block router per expert; 0 makes it a single linear. Per-linear routers have none.
        threshold_gradient: how the `threshold` router's threshold trains: `straight_through`, or `none` to keep it as it was drawn, as the
            authors' code does.
        modules_to_save: further modules to train and save whole, such as a classification head.
        pooling: what a classification head reads: `first`, the model's own way, or `mean`, the mean of the last layer's tokens in the
            place of what a pooler makes of the first one.
    """

    allocation: str = field(default="", metadata={"help": "Experts per layer, such as `2x8*8 4x8*8`."})
    top_k: int | list[int] = field(default=2, metadata={"help": "Experts per token, one number or one per layer."})
    router: str = field(default="topk", metadata={"help": "`topk`, `dense`, `sigmoid` or `threshold`."})
    lora_alpha: float | str = field(default=16, metadata={"help": "Scaling numerator, or `2r` for twice the rank."})
    aux_loss_weight: float = field(default=1e-3, metadata={"help": "Weight of the balance loss."})
    target_modules: list[str] | None = field(default=None, metadata={"help": "Groups, targets or module names; None: all."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Layers that may carry experts; None: all."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to leave alone."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of the experts' input."})
    init_seed: int = field(default=0, metadata={"help": "Seed of the initial weights."})
    swi_x: int = field(default=4, metadata={"help": "Hidden width of a block router per expert."})
    threshold_gradient: str = field(default="straight_through", metadata={"help": "`straight_through` or `none`."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules to train and save whole."})
    pooling: str = field(default="first", metadata={"help": "`first` or `mean`: what a classification head reads."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = add_peft_type(NAME.upper())
        self.allocation = str(self.allocation)
        self.top_k = list(self.top_k) if isinstance(self.top_k, Sequence) else self.top_k
        self.target_modules = _names(self.target_modules)
        if self.layers_to_transform is not None:
            self._drop_other_layers()
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"`0 <= lora_dropout < 1` must hold, but got {self.lora_dropout}")
        if self.threshold_gradient not in THRESHOLD_GRADIENTS:
            raise InputError(f"`threshold_gradient` must be one of {shown(THRESHOLD_GRADIENTS)}, but got {self.threshold_gradient!r}")
        if self.pooling not in POOLINGS:
            raise InputError(f"`pooling` must be one of {shown(POOLINGS)}, but got {self.pooling!r}")
        if self.aux_loss_weight < 0:
            raise InputError(f"`aux_loss_weight >= 0` must hold, but got {self.aux_loss_weight}")
        self.scaling(1)
        _ = self.plans, self.routing

    def _drop_other_layers(self) -> None:
        given = self.layers_to_transform
        chosen = sorted({given} if isinstance(given, int) else set(given or ()))
        num_layers = len(self.plans)
        if not chosen or not all(0 <= layer < num_layers for layer in chosen):
            raise InputError(
                f"`layers_to_transform` must name layers from 0 to {num_layers - 1}, as many as `allocation` has, but got {shown(chosen)}"
            )
        self.layers_to_transform = chosen
        self.allocation = str(Allocation(tuple(plan if i in chosen else LayerPlan() for i, plan in enumerate(self.plans))))

    @property
    def plans(self) -> Allocation:
        """The allocation as a value.

        Raises:
            InputError: where the text does not parse.
        """
        if not self.allocation.strip():
            raise InputError("`allocation` must say which experts each layer gets, but is empty: try '4x8*N' for N layers")
        return _parse(self.allocation)

    @property
    def routing(self) -> Routing:
        """How the plans become modules, as `allocsearch.core.budget.cost` takes it."""
        top_k: Any = tuple(self.top_k) if isinstance(self.top_k, list) else self.top_k
        router: Any = self.router
        return Routing(router=router, top_k=top_k, targets=tuple(self.target_modules or GROUPS), swi_x=self.swi_x)

    @property
    def balances(self) -> bool:
        """Whether training adds a balance loss."""
        return self.router == "topk" and self.aux_loss_weight > 0

    def scaling(self, rank: int) -> float:
        """The factor of an expert of `rank`: α / r."""
        if isinstance(self.lora_alpha, str):
            match = _PER_RANK.match(self.lora_alpha)
            if match is None:
                raise InputError(f"`lora_alpha` must be a number, or a text like '2r' (twice the rank), but got {self.lora_alpha!r}")
            return float(match[1])
        if not self.lora_alpha > 0:
            raise InputError(f"`lora_alpha > 0` must hold, but got {self.lora_alpha}")
        return self.lora_alpha / rank


def _names(targets: Any) -> list[str] | None:
    if targets is None or targets == "all-linear":
        return None
    if isinstance(targets, str):
        return [name.strip() for name in targets.split(",")]
    return sorted(targets) if isinstance(targets, set | frozenset) else list(targets)
