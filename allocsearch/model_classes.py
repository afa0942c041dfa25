"""Which transformers class a config is built as: a causal language model for a decoder, a classifier for an encoder."""

from dataclasses import dataclass
from typing import Any

from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)


def is_decoder(config: Any) -> bool:
    """Whether `AutoModelForCausalLM` is the natural class: encoders such as BERT are in that mapping too, for their decoder variants."""
    kind = config.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return False
    return kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or bool(getattr(config, "is_decoder", False))


def is_encoder(config: Any) -> bool:
    """Whether the model reads a text at once, and can carry a classification head."""
    return config.model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES and not is_decoder(config)


def bare_class(config: Any) -> Any:
    """The class whose parameters a budget in percent is of: without a classification head."""
    return AutoModelForCausalLM if is_decoder(config) else AutoModel


def trained_class(config: Any) -> Any:
    """The class that is trained."""
    return AutoModelForCausalLM if is_decoder(config) else AutoModelForSequenceClassification


@dataclass(frozen=True, slots=True)
class Head:
    """An encoder's classification head; empty for a decoder.

    Attributes:
        modules: names of the modules that have no trained weights.
        pooling: what they read: the `mean` of the tokens where the encoder has a pooler that can be left out, else the `first` token.
    """

    modules: tuple[str, ...] = ()
    pooling: str = "first"

    @classmethod
    def of(cls, model: Any) -> "Head":
        """The head of a transformers model: what it has beside the encoder, with weights of its own."""
        if not is_encoder(model.config):
            return cls()
        beside = [(name, child) for name, child in model.named_children() if name != model.base_model_prefix]
        has_pooler = getattr(getattr(model, model.base_model_prefix), "pooler", None) is not None
        names = tuple(name for name, child in beside if any(True for _ in child.parameters()))
        return cls(names, "mean" if has_pooler else "first")


def without_dropout(config: Any) -> Any:
    """`config` with every dropout at 0: a short training compares allocations, and dropout would be noise between them."""
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return config
