"""The PEFT config that an allocation trains under: one home for the search, the export and the final training."""

from allocsearch.core.allocation import Allocation
from allocsearch.core.geometry import Routing
from allocsearch.moelora import MoeLoraConfig


def adapter_config(
    allocation: Allocation | str, routing: Routing, *, alpha: str | float, aux_loss_weight: float, seed: int = 0, base: str | None = None
) -> MoeLoraConfig:
    """`allocation` under `routing` as a causal language model's adapter; `seed` decides its initial weights."""
    return MoeLoraConfig(
        allocation=str(allocation),
        router=routing.router,
        top_k=list(routing.top_k) if isinstance(routing.top_k, tuple) else routing.top_k,
        target_modules=list(routing.targets),
        swi_x=routing.swi_x,
        lora_alpha=alpha,
        aux_loss_weight=aux_loss_weight,
        lora_dropout=0.0,
        init_seed=seed,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
