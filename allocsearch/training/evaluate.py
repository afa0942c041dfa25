"""Scoring a model on a task's rows, in row order, with logits only where they are needed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from allocsearch.core.trial import SeedScore
from allocsearch.training.collate import IGNORED, ROWS_PER_BATCH, EncodedExample, by_length, collate, collate_prompts
from allocsearch.training.examples import Example, Metric, same_answer
from allocsearch.training.likelihood import choice_log_probs


@torch.inference_mode()
def score(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    encoded: Sequence[EncodedExample],
    *,
    metric: Metric,
    seed: int,
    max_new_tokens: int,
    rows_per_batch: int = ROWS_PER_BATCH,
) -> SeedScore:
    """Accuracy and NLL of every row.

    A choice counts as right where the true one is the likeliest; its NLL is −log p among the row's choices. A generated text counts as
    right by `same_answer`; its NLL is the mean over the true answer's tokens. The seed is only noted.
    """
    correct, nll = [False] * len(encoded), [0.0] * len(encoded)
    model.eval()
    for rows in by_length(encoded, rows_per_batch):
        chunk = [encoded[row] for row in rows]
        batch = collate(chunk, pad_id=tokenizer.pad_token_id).to(model.device)
        logits = model(**batch.inputs, use_cache=False).logits
        if metric == "choice":
            log_probs = choice_log_probs(batch, logits)
            losses = -log_probs.gather(1, batch.gold[:, None]).squeeze(1)
            right = (log_probs.argmax(dim=1) == batch.gold).tolist()
        else:
            losses = _mean_token_losses(logits, batch.target_ids)
            right = _generated_right(model, tokenizer, [examples[row] for row in rows], chunk, max_new_tokens=max_new_tokens)
        for row, is_right, loss in zip(rows, right, losses.tolist(), strict=True):
            correct[row], nll[row] = is_right, loss
    return SeedScore(seed, tuple(correct), tuple(nll))


def _mean_token_losses(logits: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
    """One mean per row of R×K targets."""
    flat = cross_entropy(logits.float().flatten(0, 1), target_ids.flatten(), ignore_index=IGNORED, reduction="none")
    return flat.view(target_ids.shape).sum(dim=1) / (target_ids != IGNORED).sum(dim=1)


def _generated_right(
    model: Any, tokenizer: Any, examples: Sequence[Example], encoded: Sequence[EncodedExample], *, max_new_tokens: int
) -> list[bool]:
    prompts = {name: value.to(model.device) for name, value in collate_prompts(encoded, pad_id=tokenizer.pad_token_id).items()}
    written = model.generate(**prompts, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    texts = tokenizer.batch_decode(written[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    return [same_answer(text, str(example.answer)) for text, example in zip(texts, examples, strict=True)]
