"""What a model's logits say about a batch: the probabilities of its choices, and the loss of its right completions.

Shapes: R rows, K scored positions, V vocabulary, B examples, C choices.
"""

import torch
from torch.nn.functional import cross_entropy, log_softmax

from allocsearch.training.collate import IGNORED, Batch


def choice_log_probs(batch: Batch, logits_RKV: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """B×C float32: each choice's log-probability among its example's choices; -inf where an example has fewer.

    A choice of several tokens has the sum of theirs. Where all choices are one token, the vocabulary's normaliser cancels, so both
    ways to lay a batch out give the same.
    """
    if batch.candidate_ids is not None:
        missing = batch.candidate_ids == IGNORED
        scores = logits_RKV[:, -1].float().gather(1, batch.candidate_ids.clamp(min=0))
        return log_softmax(scores.masked_fill(missing, -torch.inf), dim=1)
    sums = -_token_losses(batch, logits_RKV).sum(dim=1)
    num_choices = int(batch.choice_of_row.max()) + 1
    scores = sums.new_full((batch.num_examples, num_choices), -torch.inf)
    return log_softmax(scores.index_put((batch.example_of_row, batch.choice_of_row), sums), dim=1)


def completion_loss(batch: Batch, logits_RKV: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """The mean cross-entropy in nats per token of the right completions, over the whole vocabulary."""
    right = batch.choice_of_row == batch.gold[batch.example_of_row]
    counted = (batch.target_ids != IGNORED) & right[:, None]
    return (_token_losses(batch, logits_RKV) * counted).sum() / counted.sum()


def _token_losses(batch: Batch, logits_RKV: torch.Tensor) -> torch.Tensor:  # noqa: N803
    """R×K float32 cross-entropies, 0 where there is no target."""
    flat = cross_entropy(logits_RKV.float().flatten(0, 1), batch.target_ids.flatten(), ignore_index=IGNORED, reduction="none")
    return flat.view(batch.target_ids.shape)
