"""`MoeLoraLinear`: a frozen linear with a stack of routed LoRA experts per adapter."""

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from allocsearch.core.errors import InputError
from allocsearch.moelora.balance import Ledger
from allocsearch.moelora.initial import expert_rows, fill_rows, router_rows
from allocsearch.moelora.stacked import Fixed, Stack, stacked_experts

MERGE_REFUSED = (
    "an adapter must not depend on its input to be merged, but a router weighs these experts anew for every token: keep the adapter apart"
    " (`save_pretrained` stores it alone, `disable_adapter()` switches it off) or call `unload()` for the base model without it"
)


@dataclass(frozen=True, slots=True)
class Placement:
    """One adapter's experts on one linear: the stack, where it stands, and how it trains."""

    stack: Stack
    layer: int
    target: str
    init_seed: int = 0
    dropout: float = 0.0
    balanced: bool = False


class MoeLoraLinear(nn.Module, BaseTunerLayer):
    """A base linear (any module with a weight of d_out × d_in in effect) plus experts.

    Trainable parameters per adapter: `moelora_in`, all experts' A above the router's rows, and `moelora_out`, all experts' B.
    """

    adapter_layer_names = ("moelora_in", "moelora_out")
    other_param_names = ("moelora_index", "moelora_dropout", "placements")

    def __init__(self, base_layer: nn.Module, adapter_name: str, placement: Placement, *, ledger: Ledger) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = linear_features(base_layer)
        self.moelora_in = nn.ParameterDict()
        self.moelora_out = nn.ParameterDict()
        self.moelora_index = BufferDict(persistent=False)
        self.moelora_dropout = nn.ModuleDict()
        self.placements: dict[str, Placement] = {}
        self.ledger = ledger
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self.update_layer(adapter_name, placement)
        self._active_adapter = adapter_name

    def update_layer(self, adapter_name: str, placement: Placement) -> None:
        """Add the experts of one more adapter."""
        tuner: Any = self
        stack = placement.stack
        device, base_dtype = tuner._get_base_layer_device_and_dtype(tuner.get_base_layer())  # noqa: SLF001
        floating = base_dtype is not None and base_dtype.is_floating_point
        # Float32 masters whatever the base is in; a float64 base gets float64.
        made = {"dtype": torch.promote_types(base_dtype, torch.float32) if floating else torch.float32, "device": device}
        num_rows = stack.total_rank + (stack.num_experts if stack.routed else 0)
        self.placements[adapter_name] = placement
        self.moelora_in[adapter_name] = nn.Parameter(torch.empty(num_rows, self.in_features, **made))
        self.moelora_out[adapter_name] = nn.Parameter(torch.zeros(self.out_features, stack.total_rank, **made))
        self.moelora_index[adapter_name] = stack.index().to("cpu" if device is None or device.type == "meta" else device)
        self.moelora_dropout[adapter_name] = nn.Dropout(placement.dropout) if placement.dropout else nn.Identity()
        self.reset_parameters(adapter_name)
        tuner.set_adapter(tuner.active_adapters)

    def reset_parameters(self, adapter_name: str) -> None:
        """Draw A and the router from their keys, and zero B. Parameters on the meta device wait for a checkpoint."""
        place, w_in = self.placements[adapter_name], self.moelora_in[adapter_name]
        if w_in.device.type == "meta":
            return
        keys = [*expert_rows(place.stack.ranks), *router_rows(place.stack.num_experts)]
        fill_rows(w_in, keys, seed=place.init_seed, layer=place.layer, target=place.target)
        nn.init.zeros_(self.moelora_out[adapter_name])

    def cast_to_base(self, adapter_name: str) -> None:
        """Give up the float32 masters of one adapter for the base layer's own type."""
        tuner: Any = self
        _, dtype = tuner._get_base_layer_device_and_dtype(tuner.get_base_layer())  # noqa: SLF001
        if dtype is not None and dtype.is_floating_point and adapter_name in self.placements:
            for weights in (self.moelora_in, self.moelora_out):
                weights[adapter_name].data = weights[adapter_name].data.to(dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus what the active adapters' experts add."""
        output: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return output
        active: Any = self.active_adapters
        for name in active:
            if name in self.placements:
                output = self._add_experts(output, x, name)
        return output

    def _add_experts(self, output: Tensor, x: Tensor, name: str) -> Tensor:
        place = self.placements[name]
        w_in, w_out = self.moelora_in[name], self.moelora_out[name]
        book = self.ledger.book(self, name) if place.balanced and self.training and w_in.requires_grad else None
        dropped = self.moelora_dropout[name](x) if place.dropout and self.training else None
        fixed = Fixed(place.stack, self.moelora_index[name], counted=book is not None, mask=None if book is None else book.mask(x))
        mixture = stacked_experts(output, x, dropped, weights=(w_in, w_out), fixed=fixed)
        if book is None or mixture.probability_sum is None or mixture.num_chosen is None:
            return mixture.output
        return book.enter(mixture.output, mixture.probability_sum, mixture.num_chosen, module=self, adapter=name, layer=place.layer)

    @torch.no_grad()
    def expert_tensors(self, adapter_name: str) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """Each expert's A (r × d_in) and B (d_out × r) in allocation order, and the router (N × d_in) or None: views to write to."""
        if adapter_name not in self.placements:
            raise InputError(f"`adapter_name` must be one of {sorted(self.placements)}, but got {adapter_name!r}")
        stack = self.placements[adapter_name].stack
        w_in, w_out = self.moelora_in[adapter_name].detach(), self.moelora_out[adapter_name].detach()
        ranks = list(stack.ranks)
        inputs = w_in[: stack.total_rank].split(ranks)
        return list(zip(inputs, w_out.split(ranks, dim=1), strict=True)), w_in[stack.total_rank :] if stack.routed else None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:  # noqa: ARG002
        """Refused: a routed adapter is no fixed change of the weight."""
        raise InputError(MERGE_REFUSED)

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """A single expert is a LoRA; several are not."""
        return adapter_name in self.placements and not self.placements[adapter_name].stack.routed

    def __repr__(self) -> str:
        return "moelora." + super().__repr__()


def linear_features(module: nn.Module) -> tuple[int, int]:
    """d_in and d_out of a linear-like module: `nn.Linear`, the transposed `Conv1D` of GPT-2, or whatever states its features.

    Raises:
        InputError: for a module that is none of these.
    """
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    for names in (("in_features", "out_features"), ("nx", "nf"), ("input_size", "output_size")):
        sizes = [getattr(base, name, None) for name in names]
        if all(isinstance(size, int) for size in sizes):
            return int(sizes[0] or 0), int(sizes[1] or 0)
    raise InputError(
        f"an adapted module must be a linear that states its features, but got {type(base).__name__}: exclude it by `exclude_modules`"
    )
