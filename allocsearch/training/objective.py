"""What training minimises and what scoring measures, for a language model that writes and for an encoder under a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from allocsearch.core.trial import SeedScore
from allocsearch.models import Head
from allocsearch.training.classify import class_losses, encode_texts, score_classes
from allocsearch.training.collate import ROWS_PER_BATCH, EncodedExample, collate, encode
from allocsearch.training.evaluate import score
from allocsearch.training.examples import Example, Metric
from allocsearch.training.likelihood import completion_loss


@dataclass(frozen=True, slots=True)
class Objective:
    """A tokenizer and a kind of model: how rows become tokens, a loss and a score.

    Attributes:
        tokenizer: the base's, with a pad token.
        head: an encoder's classification head; empty for a language model.
        metric: how a row counts as right.
        max_tokens: the longest row.
        max_new_tokens: the longest text to generate.
    """

    tokenizer: Any
    head: Head
    metric: Metric
    max_tokens: int
    max_new_tokens: int

    def encode(self, rows: Sequence[Example]) -> tuple[EncodedExample, ...]:
        """The rows as token ids."""
        return (encode_texts if self.head.modules else encode)(rows, self.tokenizer, max_tokens=self.max_tokens)

    def loss(self, model: Any, encoded: Sequence[EncodedExample]) -> torch.Tensor:
        """The loss to train on, in nats: the mean per right token, or per row where a head classifies."""
        if self.head.modules:
            return class_losses(model, encoded, pad_id=self.tokenizer.pad_token_id).mean()
        batch = collate(encoded, pad_id=self.tokenizer.pad_token_id, gold_only=True).to(model.device)
        return completion_loss(batch, model(**batch.inputs, use_cache=False).logits)

    def num_terms(self, encoded: Sequence[EncodedExample]) -> int:
        """Over how many tokens, or rows, `loss` takes its mean."""
        return len(encoded) if self.head.modules else sum(len(example.completions[example.gold]) for example in encoded)

    def score(
        self,
        model: Any,
        rows: Sequence[Example],
        encoded: Sequence[EncodedExample],
        *,
        seed: int = 0,
        rows_per_batch: int = ROWS_PER_BATCH,
    ) -> SeedScore:
        """Accuracy and NLL of every row, in row order."""
        size = {"seed": seed, "rows_per_batch": rows_per_batch}
        if self.head.modules:
            return score_classes(model, encoded, pad_id=self.tokenizer.pad_token_id, **size)
        return score(model, self.tokenizer, rows, encoded, metric=self.metric, max_new_tokens=self.max_new_tokens, **size)
