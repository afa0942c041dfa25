"""`MoeLoraLinear`: a frozen linear with a stack of routed LoRA experts per adapter."""

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from allocsearch.core.errors import InputError
from allocsearch.moelora.balance import Ledger
from allocsearch.moelora.beside import Beside, BesideExperts
from allocsearch.moelora.block import BlockRouter, Cell, ParallelExperts, RouterSpec
from allocsearch.moelora.initial import expert_rows, fill_rows, router_rows
from allocsearch.moelora.prompt import PromptExperts, PromptSpec
from allocsearch.moelora.stacked import Fixed, Slice, Stack, stacked_experts

MERGE_REFUSED = (
    "an adapter must not depend on its input to be merged, but a router weighs these experts anew for every token: keep the adapter apart"
    " (`save_pretrained` stores it alone, `disable_adapter()` switches it off) or call `unload()` for the base model without it"
)


@dataclass(frozen=True, slots=True)
class BlockRole:
    """What a linear does in a block with a router of its own.

    Attributes:
        cell: shared by the block's linears.
        first_gate: number of this linear's first expert among the block's.
        router: on the linear that hosts the block's router.
        widths: on the FFN's first linear, which hosts the parallel adapters; `first_parallel` is the number of the first among experts.
        beside: there too, the experts of plug-in kinds.
        adds_parallel: on the FFN's last linear, whose output that of all experts beside the FFN is added to.
        prompt: on the linear that makes queries.
    """

    cell: Cell
    first_gate: int = 0
    router: RouterSpec | None = None
    widths: tuple[int, ...] = ()
    first_parallel: int = 0
    beside: tuple[Beside, ...] = ()
    adds_parallel: bool = False
    prompt: PromptSpec | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """One adapter's experts on one linear (`stack`; None: none), where it stands, how it trains, and its role in a routed block."""

    stack: Stack | None
    layer: int
    target: str
    init_seed: int = 0
    dropout: float = 0.0
    balanced: bool = False
    block: BlockRole | None = None


class MoeLoraLinear(nn.Module, BaseTunerLayer):
    """A base linear (any module with a weight of d_out × d_in in effect) plus experts.

    Trainable parameters per adapter: `moelora_in`, all experts' A above the router's rows, and `moelora_out`, all experts' B. Under a
    block router some linears also host `moelora_router`, `moelora_parallel`, `moelora_prompt` or `moelora_beside`.
    """

    adapter_layer_names = ("moelora_in", "moelora_out", "moelora_router", "moelora_parallel", "moelora_prompt", "moelora_beside")
    other_param_names = ("moelora_index", "moelora_dropout", "placements")

    def __init__(self, base_layer: nn.Module, adapter_name: str, placement: Placement, *, ledger: Ledger) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = linear_features(base_layer)
        self.moelora_in, self.moelora_out = nn.ParameterDict(), nn.ParameterDict()
        self.moelora_router, self.moelora_parallel, self.moelora_prompt = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.moelora_beside = nn.ModuleDict()
        self.moelora_index = BufferDict(persistent=False)
        self.moelora_dropout = nn.ModuleDict()
        self.placements: dict[str, Placement] = {}
        self.slices: dict[str, Slice | None] = {}  # of adapters that act as smaller ones; None: as one without experts here
        self.ledger = ledger
        self.attention_config: Any = None
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self.update_layer(adapter_name, placement)
        self._active_adapter = adapter_name

    def update_layer(self, adapter_name: str, placement: Placement) -> None:
        """Add what one more adapter has here."""
        tuner: Any = self
        device, base_dtype = tuner._get_base_layer_device_and_dtype(tuner.get_base_layer())  # noqa: SLF001
        floating = base_dtype is not None and base_dtype.is_floating_point
        # Float32 masters whatever the base is in; a float64 base gets float64.
        made: dict[str, Any] = {"device": device, "dtype": torch.promote_types(base_dtype, torch.float32) if floating else torch.float32}
        self.placements[adapter_name] = placement
        self.slices.pop(adapter_name, None)
        if placement.stack is not None:
            self._add_stack(adapter_name, placement.stack, made)
        if placement.block is not None:
            self._add_role(adapter_name, placement.block, made)
        self.moelora_dropout[adapter_name] = nn.Dropout(placement.dropout) if placement.dropout else nn.Identity()
        self.reset_parameters(adapter_name)
        tuner.set_adapter(tuner.active_adapters)

    def _add_stack(self, adapter_name: str, stack: Stack, made: dict[str, Any]) -> None:
        num_rows = stack.total_rank + (stack.num_experts if stack.has_router else 0)
        self.moelora_in[adapter_name] = nn.Parameter(torch.empty(num_rows, self.in_features, **made))
        self.moelora_out[adapter_name] = nn.Parameter(torch.empty(self.out_features, stack.total_rank, **made))
        device = made["device"]
        self.moelora_index[adapter_name] = stack.index().to("cpu" if device is None or device.type == "meta" else device)

    def _add_role(self, adapter_name: str, role: BlockRole, made: dict[str, Any]) -> None:
        if role.router is not None:
            self.moelora_router[adapter_name] = BlockRouter(self.in_features, role.router, **made)
        if role.widths:
            self.moelora_parallel[adapter_name] = ParallelExperts(self.in_features, role.widths, **made)
        if role.prompt is not None:
            self.moelora_prompt[adapter_name] = PromptExperts(self.in_features, role.prompt, **made)
        if role.beside:
            self.moelora_beside[adapter_name] = BesideExperts(self.in_features, role.beside, **made)

    def reset_parameters(self, adapter_name: str) -> None:
        """Draw A and routers from their keys, and zero B. Parameters on the meta device wait for a checkpoint."""
        here = self.placements[adapter_name]
        if here.stack is not None:
            keys = [*expert_rows(here.stack.ranks), *router_rows(here.stack.num_experts if here.stack.has_router else 0)]
            fill_rows(self.moelora_in[adapter_name], keys, seed=here.init_seed, layer=here.layer, target=here.target)
            nn.init.zeros_(self.moelora_out[adapter_name])
        for hosted in (self.moelora_router, self.moelora_parallel, self.moelora_prompt, self.moelora_beside):
            if adapter_name in hosted:
                module: Any = hosted[adapter_name]
                module.reset_parameters(seed=here.init_seed, layer=here.layer)

    def cast_to_base(self, adapter_name: str) -> None:
        """Give up the float32 masters of one adapter for the base layer's own type."""
        tuner: Any = self
        _, dtype = tuner._get_base_layer_device_and_dtype(tuner.get_base_layer())  # noqa: SLF001
        if dtype is None or not dtype.is_floating_point:
            return
        for group in self.adapter_layer_names:
            for name, parameter in getattr(self, group).named_parameters():
                if name.partition(".")[0] == adapter_name:
                    parameter.data = parameter.data.to(dtype)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The base layer's output plus what the active adapters' experts add."""
        output: Tensor = self.base_layer(x, *args, **kwargs)
        for name in self._names_at_work():
            here = self.placements[name]
            gates = None if here.block is None else self._fill_cell(x, name, here.block)
            if here.stack is not None and self.slices.get(name, here.stack) is not None:
                output = self._add_experts(output, x, name, gates)
            if here.block is not None and here.block.adds_parallel:
                assert here.block.cell.parallel is not None, "the FFN's first linear must run before its last"
                output = output + here.block.cell.parallel.reshape(output.shape).to(output.dtype)
        return output

    def _names_at_work(self) -> list[str]:
        if self.disable_adapters:
            return []
        active: Any = self.active_adapters
        return [name for name in active if name in self.placements]

    def _fill_cell(self, x: Tensor, name: str, role: BlockRole) -> Tensor:
        """Compute what this linear hosts for its block; returns the gates of its own experts."""
        if role.router is not None:
            role.cell.gates = self.moelora_router[name](x)
        if role.widths:
            gates = role.cell.columns(role.first_parallel, len(role.widths))
            role.cell.parallel = self.moelora_parallel[name](x, gates)
        if role.beside:
            added = self.moelora_beside[name](x, role.cell)
            role.cell.parallel = role.cell.parallel + added if role.widths else added
        stack = self.placements[name].stack
        return role.cell.columns(role.first_gate, 0 if stack is None else stack.num_experts)

    def _add_experts(self, output: Tensor, x: Tensor, name: str, gates: Tensor | None) -> Tensor:
        here = self.placements[name]
        assert here.stack is not None
        w_in, w_out, stack, index = self.moelora_in[name], self.moelora_out[name], here.stack, self.moelora_index[name]
        part = self.slices.get(name)
        if part is not None:
            stack, index, (w_in, w_out) = part.stack, part.index, part.weights(w_in, w_out)
        balanced = here.balanced and stack.num_experts > 1
        book = self.ledger.book(self, name) if balanced and self.training and w_in.requires_grad else None
        dropped = self.moelora_dropout[name](x) if here.dropout and self.training else None
        fixed = Fixed(stack, index, counted=book is not None, mask=None if book is None else book.mask(x))
        mixture = stacked_experts(output, x, dropped, weights=(w_in, w_out), fixed=fixed, gates=gates)
        if book is None or mixture.probability_sum is None or mixture.num_chosen is None:
            return mixture.output
        return book.enter(mixture.output, mixture.probability_sum, mixture.num_chosen, module=self, adapter=name, layer=here.layer)

    def add_prompts(self, output: Tensor, query: Tensor, *, attention: nn.Module, scaling: float) -> Tensor:
        """The attention's output plus what the active adapters' prompts add; called by the attention function."""
        for name in self._names_at_work():
            role = self.placements[name].block
            if role is not None and role.prompt is not None:
                gates = role.cell.columns(role.prompt.first_gate, len(role.prompt.lengths))
                output = output + self.moelora_prompt[name](query, gates, attention=attention, scaling=scaling)
        return output

    @torch.no_grad()
    def expert_tensors(self, adapter_name: str) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
        """Each expert's A (r × d_in) and B (d_out × r) in allocation order, and its router (N × d_in) or None: views to write to."""
        if adapter_name not in self.placements:
            raise InputError(f"`adapter_name` must be one of {sorted(self.placements)}, but got {adapter_name!r}")
        stack = self.placements[adapter_name].stack
        if stack is None:
            return [], None
        w_in, w_out = self.moelora_in[adapter_name].detach(), self.moelora_out[adapter_name].detach()
        ranks = list(stack.ranks)
        inputs = w_in[: stack.total_rank].split(ranks)
        return list(zip(inputs, w_out.split(ranks, dim=1), strict=True)), w_in[stack.total_rank :] if stack.has_router else None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> NoReturn:  # noqa: ARG002
        """Refused: a routed adapter is no fixed change of the weight."""
        raise InputError(MERGE_REFUSED)

    def unmerge(self) -> None:
        """Nothing is ever merged."""

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
