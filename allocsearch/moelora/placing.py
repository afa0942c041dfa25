"""Where an allocation's experts go in a model: one `Placement` per module to wrap, keyed by the module's name."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from allocsearch.core.allocation import BLOCK_KINDS, LayerPlan
from allocsearch.core.errors import InputError, shown
from allocsearch.core.geometry import Site
from allocsearch.core.plugins import KINDS
from allocsearch.core.targets import GROUPS, Location, locate
from allocsearch.moelora.beside import Beside
from allocsearch.moelora.block import Cell, RouterSpec
from allocsearch.moelora.config import MoeLoraConfig
from allocsearch.moelora.layer import BlockRole, Placement, linear_features
from allocsearch.moelora.prompt import PromptSpec, attention_of
from allocsearch.moelora.stacked import Stack

_FIRST_OF_ATTENTION: Final = ("q", "qkv")
_FIRST_OF_FFN: Final = ("up", "gate_up")


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear of the model that experts may go on."""

    name: str
    at: Location
    site: Site


def excluded(config: MoeLoraConfig, name: str) -> Any:
    """PEFT's mark for a module that `exclude_modules` or `modules_to_save` takes out, else None."""
    # PEFT's own rule is asked about exclusions alone: it is told that the module is a target.
    asked = SimpleNamespace(target_modules=[name], exclude_modules=config.exclude_modules, modules_to_save=config.modules_to_save)
    verdict = check_target_module_exists(asked, name)
    return None if verdict else verdict


def place(model: nn.Module, config: MoeLoraConfig) -> dict[str, Placement]:
    """All modules that `config` wraps in `model`, with what each gets.

    Raises:
        InputError: where the allocation or `top_k` says more or less than it can mean for the model.
    """
    linears = _linears(model, config)
    placements: dict[str, Placement] = {}
    for layer, plan in enumerate(config.plans):
        members = [linear for linear in linears if linear.at.layer == layer]
        admitted = [linear for linear in members if config.routing.admits(linear.site) and excluded(config, linear.name) is None]
        _check_plan(plan, [linear.site for linear in admitted], layer=layer, config=config)
        if config.routing.per_block:
            placements |= _place_block(model, plan, members=members, admitted=admitted, config=config)
        else:
            placements |= _place_linears(plan, admitted, config=config)
    if not placements:
        raise InputError(
            f"at least one expert must be placed, but {config.allocation!r} on {config.target_modules or 'all targets'} places none"
        )
    return placements


def _linears(model: nn.Module, config: MoeLoraConfig) -> list[_Linear]:
    """The linears of the model's one list of layers that has as many as the allocation."""
    located = [(name, module, at) for name, module in model.named_modules() if (at := locate(name)) is not None]
    sizes: dict[str, int] = {}
    for _, _, at in located:
        sizes[at.stack] = max(sizes.get(at.stack, 0), at.layer + 1)
    num_plans = len(config.plans)
    fitting = [stack for stack, size in sizes.items() if size == num_plans]
    if len(fitting) != 1:
        offered = shown(f"{stack} ({size})" for stack, size in sizes.items()) or "none that is known"
        raise InputError(
            f"an allocation must have one plan per layer, but got {num_plans} plans for {type(model).__name__} with the layers {offered}"
        )
    if isinstance(config.top_k, list) and len(config.top_k) != num_plans:
        raise InputError(f"`top_k` must be one number or one per layer, but got {len(config.top_k)} for {num_plans} layers")
    return [
        _Linear(name, at, Site(at.target, at.group, *linear_features(module), at.path))
        for name, module, at in located
        if at.stack == fitting[0]
    ]


def _check_plan(plan: LayerPlan, sites: list[Site], *, layer: int, config: MoeLoraConfig) -> None:
    offered = {site.name for site in sites}
    for name, _ in plan.parts:
        if name in BLOCK_KINDS and not config.routing.per_block:
            raise InputError(
                f"a {name!r} expert needs a block router, but layer {layer} has one under {config.router!r}: use sigmoid or threshold"
            )
        if name not in (*GROUPS, *BLOCK_KINDS) and plan.sizes(name) and name not in offered:
            raise InputError(
                f"each target of a plan must be adaptable, but layer {layer} names {name!r} and offers {shown(sorted(offered))}"
            )


def _place_linears(plan: LayerPlan, admitted: list[_Linear], *, config: MoeLoraConfig) -> dict[str, Placement]:
    return {linear.name: _placement(linear, plan, config=config) for linear in admitted if plan.sizes(linear.site.name)}


def _placement(linear: _Linear, plan: LayerPlan, *, config: MoeLoraConfig, block: BlockRole | None = None) -> Placement:
    ranks = plan.sizes(linear.site.name) if config.routing.admits(linear.site) else ()
    scaling = tuple(config.scaling(rank) for rank in ranks)
    stack = Stack(ranks, scaling, router=config.routing.router, top_k=config.routing.top_k_of(linear.at.layer)) if ranks else None
    return Placement(
        stack,
        layer=linear.at.layer,
        target=linear.at.target,
        init_seed=config.init_seed,
        dropout=config.lora_dropout,
        balanced=config.balances and len(ranks) > 1,
        block=block,
    )


def _place_block(
    model: nn.Module, plan: LayerPlan, *, members: list[_Linear], admitted: list[_Linear], config: MoeLoraConfig
) -> dict[str, Placement]:
    experts = plan.experts(linear.site for linear in admitted)
    if not experts:
        return {}
    cell = Cell()
    host = _first(members, _FIRST_OF_ATTENTION, config=config, why="a block router")
    widths, lengths = plan.sizes("parallel"), plan.sizes("prompt")
    first = {expert.kind: number for number, expert in reversed(list(enumerate(experts)))}
    beside = tuple(Beside(kind, plan.sizes(kind), first[kind]) for kind in KINDS if plan.sizes(kind))
    why = "an expert beside the FFN"
    first_ffn = _first(members, _FIRST_OF_FFN, config=config, why=why) if widths or beside else None
    last_ffn = _first(members, ("down",), config=config, why=why) if widths or beside else None
    prompt = _prompt_spec(model, lengths, host=host, members=members, first_gate=first["prompt"]) if lengths else None
    router = RouterSpec(experts, config.swi_x, sparse=config.router == "threshold", straight_through=config.threshold_gradient != "none")
    placements: dict[str, Placement] = {}
    first_gate = 0
    for linear in members:
        num_gates = len(plan.sizes(linear.site.name)) if linear in admitted else 0
        if num_gates or linear in (host, first_ffn, last_ffn):
            role = BlockRole(
                cell,
                first_gate=first_gate,
                router=router if linear is host else None,
                widths=widths if linear is first_ffn else (),
                first_parallel=first.get("parallel", 0),
                beside=beside if linear is first_ffn else (),
                adds_parallel=linear is last_ffn,
                prompt=prompt if linear is host else None,
            )
            placements[linear.name] = _placement(linear, plan if num_gates else LayerPlan(), config=config, block=role)
        first_gate += num_gates
    return placements


def _first(members: list[_Linear], targets: tuple[str, ...], *, config: MoeLoraConfig, why: str) -> _Linear:
    for linear in members:
        if linear.site.name in targets and excluded(config, linear.name) is None:
            return linear
    offered = shown(linear.site.name for linear in members)
    raise InputError(
        f"{why} needs a linear {' or '.join(targets)} to stand on, but the layer offers {offered}:"
        " leave it out of the allocation, or stop excluding that linear"
    )


def _prompt_spec(model: nn.Module, lengths: tuple[int, ...], *, host: _Linear, members: list[_Linear], first_gate: int) -> PromptSpec:
    names = {linear.site.name: linear.name.rpartition(".")[2] for linear in members}
    if host.site.name != "q" or not {"k", "v"} <= names.keys():
        raise InputError(f"a prompt expert needs separate linears q, k and v, but the layer offers {shown(names)}: leave `prompt` out")
    config: Any = attention_of(model, host.name).config
    return PromptSpec(lengths, first_gate, num_heads=config.num_attention_heads, key=names["k"], value=names["v"])
