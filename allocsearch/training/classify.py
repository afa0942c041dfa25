"""Encoder models: a whole text in, one of the task's fixed choices out, by a classification head that is trained with the experts.

The head's initial weights depend on the seed alone, so all allocations start from the same one. `cost` leaves it out, since every
allocation trains it.

Shapes: B rows, T tokens, C classes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.nn.functional import cross_entropy, log_softmax

from allocsearch.core.trial import SeedScore
from allocsearch.moelora.initial import fill_rows
from allocsearch.training.collate import ROWS_PER_BATCH, EncodedExample, by_length
from allocsearch.training.examples import Example, Task

_ABOVE_ALL_LAYERS: Final = -1  # the head's place in the keys of initial weights


def num_classes(task: Task) -> int | None:
    """How many choices every row of `task` has in common; None where rows bring their own, or a text is to be written."""
    choices = {example.choices for part in (task.train, task.search, task.test) for example in part}
    return len(next(iter(choices))) or None if len(choices) == 1 else None


def encode_texts(examples: Sequence[Example], tokenizer: Any, *, max_tokens: int) -> tuple[EncodedExample, ...]:
    """Tokenise prompts with the encoder's special tokens. A text that is too long loses its end; its choices have no tokens."""
    longest = min(max_tokens, tokenizer.model_max_length)
    texts = tokenizer([example.prompt for example in examples], truncation=True, max_length=longest)["input_ids"]
    return tuple(
        EncodedExample(tuple(text), ((),) * len(example.choices), example.gold) for text, example in zip(texts, examples, strict=True)
    )


def class_losses(model: Any, encoded: Sequence[EncodedExample], *, pad_id: int) -> torch.Tensor:
    """B float32 cross-entropies in nats, of the right class among C."""
    logits, gold = _logits(model, encoded, pad_id=pad_id)
    return cross_entropy(logits, gold, reduction="none")


@torch.inference_mode()
def score_classes(
    model: Any, encoded: Sequence[EncodedExample], *, pad_id: int, seed: int, rows_per_batch: int = ROWS_PER_BATCH
) -> SeedScore:
    """Accuracy and NLL of every row, in row order. The seed is only noted."""
    correct, nll = [False] * len(encoded), [0.0] * len(encoded)
    model.eval()
    for rows in by_length(encoded, rows_per_batch):
        logits, gold = _logits(model, [encoded[row] for row in rows], pad_id=pad_id)
        log_probs = log_softmax(logits, dim=1)
        losses = -log_probs.gather(1, gold[:, None]).squeeze(1)
        right = log_probs.argmax(dim=1) == gold
        for row, is_right, loss in zip(rows, right.tolist(), losses.tolist(), strict=True):
            correct[row], nll[row] = is_right, loss
    return SeedScore(seed, tuple(correct), tuple(nll))


@torch.no_grad()
def draw_head(model: Any, head: Sequence[str], *, seed: int) -> None:
    """New initial weights for the linears of the head: rows from U(−1/√d, 1/√d) for d inputs, biases 0."""
    for name in head:
        for below, module in model.get_submodule(name).named_modules(prefix=name):
            if isinstance(module, torch.nn.Linear):
                fill_rows(module.weight, [(row,) for row in range(module.out_features)], seed=seed, layer=_ABOVE_ALL_LAYERS, target=below)
                module.bias.zero_()


@contextmanager
def restored_head(model: Any, head: Sequence[str]) -> Iterator[None]:
    """Puts the head's modules back at the end: PEFT leaves its trained copies in their place."""
    modules = {name: getattr(model, name) for name in head}
    try:
        yield
    finally:
        for name, module in modules.items():
            setattr(model, name, module.requires_grad_(requires_grad=False))


def _logits(model: Any, encoded: Sequence[EncodedExample], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B×C float32 logits and the B right classes. Rows are padded on their right, where positions by number leave them in place."""
    width = max(len(example.prompt) for example in encoded)
    ids = torch.tensor([[*example.prompt, *[pad_id] * (width - len(example.prompt))] for example in encoded])
    mask = torch.tensor([[1] * len(example.prompt) + [0] * (width - len(example.prompt)) for example in encoded])
    gold = torch.tensor([example.gold for example in encoded])
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
    return logits.float(), gold.to(model.device)
