"""Mean pooling: a classifier's head reads the mean of the last layer's tokens, and not what a pooler makes of the first one.

A pooler was trained with the encoder for another purpose (BERT's for next sentences), and a sentence encoder leaves its own unused. In
a short training the mean is the better start.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from allocsearch.core.errors import InputError
from allocsearch.moelora.balance import attention_mask_of

POOLINGS = ("first", "mean")


def pooler_of(classifier: Any) -> nn.Module | None:
    """The module that makes one vector of a text's tokens, where the encoder has one."""
    encoder = getattr(classifier, getattr(classifier, "base_model_prefix", ""), None)
    pooler = getattr(encoder, "pooler", None)
    return pooler if isinstance(pooler, nn.Module) else None


class MeanPooling:
    """Hooks that put the mean in the place of the pooler's output, as long as `applies` says so."""

    def __init__(self, classifier: Any, applies: Callable[[], bool]) -> None:
        pooler = pooler_of(classifier)
        if pooler is None:
            raise InputError(f"mean pooling needs a classifier with a pooler, but {type(classifier).__name__} has none: use 'first'")
        encoder = getattr(classifier, classifier.base_model_prefix)
        self._applies = applies
        self._mask: Tensor | None = None
        self._handles = [encoder.register_forward_pre_hook(self._note, with_kwargs=True), pooler.register_forward_hook(self._pool)]

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _note(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._mask = attention_mask_of(encoder, args, kwargs)

    def _pool(self, _pooler: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        mask, self._mask = self._mask, None
        if not self._applies():
            return output
        tokens = inputs[0]
        if mask is None:
            return tokens.mean(dim=1)
        weights = mask[..., None].to(tokens.dtype)
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
