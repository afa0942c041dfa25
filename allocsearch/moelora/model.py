"""`MoeLoraModel`: puts routed experts on the linears of a model that an allocation names."""

from types import SimpleNamespace
from typing import Any, Final, NoReturn

from peft.tuners.tuners_utils import BaseTuner, check_target_module_exists
from torch import Tensor, nn

from allocsearch.core.allocation import BLOCK_KINDS
from allocsearch.core.errors import InputError, shown
from allocsearch.core.geometry import Site
from allocsearch.core.targets import GROUPS, Location, locate
from allocsearch.moelora.balance import Ledger
from allocsearch.moelora.config import MoeLoraConfig
from allocsearch.moelora.layer import MERGE_REFUSED, MoeLoraLinear, Placement, linear_features
from allocsearch.moelora.registration import PREFIX
from allocsearch.moelora.stacked import Stack


class MoeLoraModel(BaseTuner):
    """The tuner behind `get_peft_model(base, MoeLoraConfig(...))`."""

    prefix: str = PREFIX
    tuner_layer_cls = MoeLoraLinear
    target_module_mapping: Final[dict[str, list[str]]] = {}

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Check the adapter's config against `model`, put its experts in, and let the balance loss in where it is wanted."""
        config: MoeLoraConfig = self.peft_config[adapter_name]
        stacks = self.__dict__.setdefault("layer_stacks", {})
        stacks[adapter_name] = fitting_stack(model, config)
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        if config.balances:
            ledger = _ledger(model)
            ledger.weights[adapter_name] = config.aux_loss_weight
            ledger.install(model)

    def _prepare_adapter_config(self, peft_config: MoeLoraConfig, model_config: dict[str, Any]) -> MoeLoraConfig:  # noqa: ARG002
        return peft_config  # the allocation says where experts go; there are no names to fill in

    def _check_target_module_exists(self, peft_config: MoeLoraConfig, key: str) -> Any:
        # PEFT's own rule is asked only about exclusions: it is told that the module is a target.
        asked = SimpleNamespace(
            target_modules=[key], exclude_modules=peft_config.exclude_modules, modules_to_save=peft_config.modules_to_save
        )
        allowed = check_target_module_exists(asked, key)
        return bool(self._ranks(peft_config, key)) if allowed else allowed

    def _ranks(self, config: MoeLoraConfig, key: str) -> tuple[int, ...]:
        name = next(name for name, known in self.peft_config.items() if known is config)
        location = locate(key)
        if location is None or location.stack != self.layer_stacks[name] or not config.routing.admits(_site(location)):
            return ()
        return config.plans.layers[location.layer].sizes(location.target)

    def _create_and_replace(  # noqa: PLR0917 - PEFT's signature
        self, config: MoeLoraConfig, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module, current_key: str, **_: Any
    ) -> None:
        location, ranks = locate(current_key), self._ranks(config, current_key)
        if location is None or not ranks:
            raise InputError(f"each adapted module must have experts in the allocation, but {current_key!r} has none")
        placement = Placement(
            stack=Stack(
                ranks=ranks,
                scaling=tuple(config.scaling(rank) for rank in ranks),
                router=config.routing.router,
                top_k=config.routing.top_k_of(location.layer),
            ),
            layer=location.layer,
            target=location.target,
            init_seed=config.init_seed,
            dropout=config.lora_dropout,
            balanced=config.balances and len(ranks) > 1,
        )
        if isinstance(target, MoeLoraLinear):
            target.update_layer(adapter_name, placement)
            return
        linear_features(target)
        module = MoeLoraLinear(target, adapter_name, placement, ledger=_ledger(self.model))
        if adapter_name not in self.active_adapters:
            module.requires_grad_(requires_grad=False)
        self._replace_module(parent, target_name, module, target)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        # Parameters are float32 from the start. Who asks for no upcast wants the base layer's own type.
        if autocast_adapter_dtype:
            super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
            return
        for module in self.model.modules():
            if isinstance(module, MoeLoraLinear):
                module.cast_to_base(adapter_name)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; others stay."""
        super().delete_adapter(adapter_name)
        _ledger(self.model).weights.pop(adapter_name, None)

    def unload(self) -> nn.Module:
        """The base model as it was: no wrapped modules, no hooks."""
        _ledger(self.model).uninstall()
        base: nn.Module = super().unload()
        return base

    def _check_merge_allowed(self) -> NoReturn:
        raise InputError(MERGE_REFUSED)


def balance_loss(model: nn.Module) -> Tensor:
    """The balance loss of `model`'s last training forward pass, unweighted: 1 a routed layer when balance is perfect.

    `out.loss` holds it already, weighted. This is for training loops that compute a loss of their own.
    """
    return _ledger(model).loss()


def fitting_stack(model: nn.Module, config: MoeLoraConfig) -> str:
    """The dotted name of the list of layers that `config.allocation` is about.

    Raises:
        InputError: where the model has no such list, or the allocation or top_k says more or less than it can mean there.
    """
    config.check_supported()
    stacks: dict[str, dict[int, set[str]]] = {}
    for name, module in model.named_modules():
        location = locate(name)
        if location is not None and not isinstance(module, nn.ModuleList):
            stacks.setdefault(location.stack, {}).setdefault(location.layer, set()).add(location.target)
    plans = config.plans
    found = {stack: max(layers) + 1 for stack, layers in stacks.items()}
    fitting = [stack for stack, num_layers in found.items() if num_layers == len(plans)]
    if len(fitting) != 1:
        offered = shown(f"{stack} ({num_layers})" for stack, num_layers in found.items()) or "none that is known"
        raise InputError(
            f"an allocation must have one plan per layer, but got {len(plans)} plans for {type(model).__name__} with the layers {offered}"
        )
    if isinstance(config.top_k, list) and len(config.top_k) != len(plans):
        raise InputError(f"`top_k` must be one number or one per layer, but got {len(config.top_k)} for {len(plans)} layers")
    _check_plans(config, stacks[fitting[0]])
    return fitting[0]


def _check_plans(config: MoeLoraConfig, targets_of: dict[int, set[str]]) -> None:
    num_placed = 0
    for layer, plan in enumerate(config.plans):
        offered = {target for target in targets_of.get(layer, ()) if config.routing.admits(_site(Location("", layer, "", target)))}
        num_placed += sum(len(plan.sizes(target)) for target in offered)
        for name, _ in plan.parts:
            if name in BLOCK_KINDS:
                raise InputError(f"a {name!r} expert needs a block router, but layer {layer} has one under {config.router!r}")
            if name not in GROUPS and plan.sizes(name) and name not in offered:
                raise InputError(
                    f"each target of a plan must be adaptable, but layer {layer} names {name!r} and offers {shown(sorted(offered))}"
                )
    if not num_placed:
        raise InputError(
            f"at least one expert must be placed, but {config.allocation!r} on {config.target_modules or 'all targets'} places none"
        )


def _site(location: Location) -> Site:
    return Site(location.target, location.group, 0, 0)


def _ledger(model: nn.Module) -> Ledger:
    return next((module.ledger for module in model.modules() if isinstance(module, MoeLoraLinear)), None) or Ledger()
