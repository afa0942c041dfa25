"""The PEFT config that an allocation trains under: one home for the search, the export and the final training."""

from typing import Final

from allocsearch.core.allocation import Allocation
from allocsearch.core.geometry import Routing
from allocsearch.models import Head
from allocsearch.moelora import MoeLoraConfig

NO_HEAD: Final = Head()


def adapter_config(
    allocation: Allocation | str,
    routing: Routing,
    *,
    alpha: str | float,
    aux_loss_weight: float,
    seed: int = 0,
    base: str | None = None,
    head: Head = NO_HEAD,
) -> MoeLoraConfig:
    """`allocation` under `routing` as a causal language model's adapter, or, with a `head`, a classifier's.

    `seed` decides the experts' initial weights.
    """
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
        task_type="SEQ_CLS" if head.modules else "CAUSAL_LM",
        modules_to_save=list(head.modules) or None,
        pooling=head.pooling,
        base_model_name_or_path=base,
    )
