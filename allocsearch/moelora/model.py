"""`MoeLoraModel`: puts routed experts on the linears of a model that an allocation names."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NoReturn

from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from allocsearch.core.errors import InputError
from allocsearch.moelora.balance import Ledger
from allocsearch.moelora.config import MoeLoraConfig
from allocsearch.moelora.layer import MERGE_REFUSED, MoeLoraLinear, Placement
from allocsearch.moelora.placing import excluded, place
from allocsearch.moelora.pooling import MeanPooling
from allocsearch.moelora.prompt import attention_of, divert
from allocsearch.moelora.registration import PREFIX


class MoeLoraModel(BaseTuner):
    """The tuner behind `get_peft_model(base, MoeLoraConfig(...))`."""

    prefix: str = PREFIX
    tuner_layer_cls = MoeLoraLinear
    target_module_mapping: Final[dict[str, list[str]]] = {}

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Check the adapter's config against `model`, put its experts in, and let the balance loss in where it is wanted."""
        config: MoeLoraConfig = self.peft_config[adapter_name]
        placements = place(model, config)
        self.__dict__["_waiting"] = (config, placements)
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        del self.__dict__["_waiting"]
        for name, placement in placements.items():
            if placement.block is not None and placement.block.prompt is not None:
                host, attention = model.get_submodule(name), attention_of(model, name)
                host.attention_config = host.attention_config or divert(attention)
        if config.pooling == "mean" and "_pooling" not in self.__dict__:
            self.__dict__["_pooling"] = MeanPooling(model, self._pools)
        if config.balances:
            ledger = _ledger(model)
            ledger.weights[adapter_name] = config.aux_loss_weight
            ledger.install(model)

    def _prepare_adapter_config(self, peft_config: MoeLoraConfig, model_config: dict[str, Any]) -> MoeLoraConfig:  # noqa: ARG002
        return peft_config  # the allocation says where experts go; there are no names to fill in

    def _check_target_module_exists(self, peft_config: MoeLoraConfig, key: str) -> Any:
        verdict = excluded(peft_config, key)
        if verdict is not None:
            return verdict
        config, placements = self.__dict__.get("_waiting", (None, {}))
        return key in (placements if config is peft_config else place(self.model, peft_config))

    def _create_and_replace(  # noqa: PLR0917 - PEFT's signature
        self, config: MoeLoraConfig, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module, current_key: str, **_: Any
    ) -> None:
        placements: dict[str, Placement] = self.__dict__["_waiting"][1]
        if current_key not in placements:
            raise InputError(
                f"each adapted module must have experts in the allocation, but {current_key!r} has none in {config.allocation!r}"
            )
        if isinstance(target, MoeLoraLinear):
            target.update_layer(adapter_name, placements[current_key])
            return
        module = MoeLoraLinear(target, adapter_name, placements[current_key], ledger=_ledger(self.model))
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

    def add_weighted_adapter(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: weights of routers and experts do not add up to those of a mixture."""
        raise InputError(
            "adapters must be sums of fixed updates to be combined into one, but these have routers: "
            "activate several at once by `model.base_model.set_adapter([...])`"
        )

    def _pools(self) -> bool:
        """Whether the head of the adapter at work reads the mean."""
        at_work = next((module for module in self.model.modules() if isinstance(module, MoeLoraLinear)), None)
        if at_work is None or at_work.disable_adapters:
            return False
        return any(self.peft_config[name].pooling == "mean" for name in self.active_adapters if name in self.peft_config)

    def unload(self) -> nn.Module:
        """The base model as it was: no wrapped modules, no hooks, no config of ours."""
        _ledger(self.model).uninstall()
        if "_pooling" in self.__dict__:
            self.__dict__.pop("_pooling").remove()
        for name, module in list(self.model.named_modules()):
            if isinstance(module, MoeLoraLinear) and module.attention_config is not None:
                attention: Any = self.model.get_submodule(name.rpartition(".")[0])
                attention.config = module.attention_config
        base: nn.Module = super().unload()
        return base

    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> AbstractContextManager[None]:
        # PEFT would drop `adapter_names` in silence and answer with the active adapter.
        if kwargs.get("adapter_names") is not None:
            raise InputError("one adapter must serve a whole batch, but got `adapter_names`: split the batch and call `set_adapter`")
        return nullcontext()

    def _check_merge_allowed(self) -> NoReturn:
        raise InputError(MERGE_REFUSED)


def balance_loss(model: nn.Module) -> Tensor:
    """The balance loss of `model`'s last training forward pass, unweighted: 1 a routed layer when balance is perfect.

    `out.loss` holds it already, weighted. This is for training loops that compute a loss of their own.
    """
    return _ledger(model).loss()


def _ledger(model: nn.Module) -> Ledger:
    return next((module.ledger for module in model.modules() if isinstance(module, MoeLoraLinear)), None) or Ledger()
