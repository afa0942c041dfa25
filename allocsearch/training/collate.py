"""Token ids in, batches out: where a completion starts, what is cut, and which logits are needed.

Shapes: R rows, T tokens, K scored positions, B examples, C choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import torch

from allocsearch.core.errors import InputError
from allocsearch.training.examples import Example
from allocsearch.transformers_log import quiet

IGNORED: Final = -100
"""Stands where a batch has no token to predict, or no candidate; `cross_entropy` skips it by default."""

ROWS_PER_BATCH: Final = 32
"""Examples that are scored at a time."""

_CHUNK: Final = 1024  # examples per call of the tokenizer


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of a prompt and of each completion; `gold` is the right one's index."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    gold: int

    @property
    def num_tokens(self) -> int:
        """Length of the longest row that this example gives."""
        return len(self.prompt) + max(map(len, self.completions))

    @property
    def has_single_tokens(self) -> bool:
        """Whether every completion is one token, so that one row scores them all."""
        return all(len(completion) == 1 for completion in self.completions)


@dataclass(frozen=True, slots=True)
class Batch:
    """Left-padded rows. Call the model with `input_ids`, `attention_mask`, `position_ids` and `logits_to_keep`.

    Attributes:
        input_ids: R×T; a row ends before its last target, which is predicted and never read.
        attention_mask: R×T, 1 for tokens.
        position_ids: R×T, counted from each row's first token.
        target_ids: R×K, what the last K positions predict, `IGNORED` where a row's completion is shorter.
        candidate_ids: R×C, the one token of each choice, `IGNORED` where a row has fewer; None where choices have rows of their own.
        example_of_row: R, the row's example, from 0 within the batch.
        choice_of_row: R, the completion that the row ends in.
        gold: B, the index of each example's right completion.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    target_ids: torch.Tensor
    candidate_ids: torch.Tensor | None
    example_of_row: torch.Tensor
    choice_of_row: torch.Tensor
    gold: torch.Tensor

    @property
    def logits_to_keep(self) -> int:
        """K: how many of the last positions' logits are needed."""
        return self.target_ids.shape[1]

    @property
    def num_examples(self) -> int:
        """B."""
        return self.gold.shape[0]

    @property
    def inputs(self) -> dict[str, Any]:
        """Keyword arguments for the model."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "logits_to_keep": self.logits_to_keep,
        }

    def to(self, device: str | torch.device) -> "Batch":
        """The same batch on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if value is not None})


def encode(examples: Sequence[Example], tokenizer: Any, *, max_tokens: int) -> tuple[EncodedExample, ...]:
    """Tokenise examples, each row at most `max_tokens` long.

    Prompt and completion are tokenised together and then cut where the prompt's own tokens end. Apart, a SentencePiece tokenizer
    would put a second word mark before the completion, and a merge across the boundary would be lost. Where the joint text does merge
    across it, the cut moves left to the last token that the prompt and all its completions share, so that every completion is
    scored after the same context.

    A long prompt loses tokens on its left, after its first special token: the question stands at the end. A text answer ends with
    the end-of-sequence token, and is cut on its right if it alone is too long; a choice is never cut.

    Raises:
        InputError: where a choice leaves no room for its prompt.
    """
    encoded: list[EncodedExample] = []
    for start in range(0, len(examples), _CHUNK):
        encoded += _encode_chunk(examples[start : start + _CHUNK], tokenizer, max_tokens=max_tokens)
    return tuple(encoded)


def collate(encoded: Sequence[EncodedExample], *, pad_id: int, gold_only: bool = False) -> Batch:
    """One batch of `encoded`.

    Where every completion is one token, an example is one row, and its choices are `candidate_ids`. Otherwise an example has a row
    per completion.

    Args:
        encoded: the examples.
        pad_id: what fills rows up on their left; it is masked.
        gold_only: one row per example in any case, with the right completion: for a language-modelling loss.
    """
    single = all(example.has_single_tokens for example in encoded)
    if single or gold_only:
        rows = [(number, example.gold) for number, example in enumerate(encoded)]
    else:
        rows = [(number, choice) for number, example in enumerate(encoded) for choice in range(len(example.completions))]
    inputs = [encoded[number].prompt + encoded[number].completions[choice][:-1] for number, choice in rows]
    targets = [encoded[number].completions[choice] for number, choice in rows]
    input_ids = _padded_left(inputs, pad_id)
    attention_mask = _padded_left([(1,) * len(row) for row in inputs], 0)
    return Batch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(dim=1) - 1).clamp(min=0),
        target_ids=_padded_left(targets, IGNORED),
        candidate_ids=_candidates(encoded) if single else None,
        example_of_row=torch.tensor([number for number, _ in rows]),
        choice_of_row=torch.tensor([choice for _, choice in rows]),
        gold=torch.tensor([example.gold for example in encoded]),
    )


def collate_prompts(encoded: Sequence[EncodedExample], *, pad_id: int) -> dict[str, torch.Tensor]:
    """Left-padded prompts alone, as `generate` takes them: `input_ids` and `attention_mask`, B×T."""
    prompts = [example.prompt for example in encoded]
    return {"input_ids": _padded_left(prompts, pad_id), "attention_mask": _padded_left([(1,) * len(prompt) for prompt in prompts], 0)}


def by_length(encoded: Sequence[EncodedExample], batch_size: int) -> list[list[int]]:
    """Indices in batches of about equal length, longest first: little padding, and a lack of memory shows at once. For scoring only."""
    order = sorted(range(len(encoded)), key=lambda index: -encoded[index].num_tokens)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _encode_chunk(examples: Sequence[Example], tokenizer: Any, *, max_tokens: int) -> list[EncodedExample]:
    joined = [example.prompt + completion for example in examples for completion in example.completions]
    with quiet():  # the advice on texts above the model's length: they are cut below
        prompts = tokenizer([example.prompt for example in examples], add_special_tokens=True, truncation=False)["input_ids"]
        texts = iter(tokenizer(joined, add_special_tokens=True, truncation=False)["input_ids"])
    encoded = []
    for example, prompt in zip(examples, prompts, strict=True):
        whole = [next(texts) for _ in example.completions]
        cut = min(_common_prefix(prompt, text) for text in whole)
        completions = [tuple(text[cut:]) for text in whole]
        if not example.choices:
            completions = [_ended(completions[0], tokenizer.eos_token_id)]
        encoded.append(_fitted(example, tuple(prompt[:cut]), completions, bos_id=tokenizer.bos_token_id, max_tokens=max_tokens))
    return encoded


def _fitted(
    example: Example, prompt: tuple[int, ...], completions: list[tuple[int, ...]], *, bos_id: int | None, max_tokens: int
) -> EncodedExample:
    if not prompt or not all(completions):
        raise InputError(f"a prompt and its completions must have tokens of their own, but {example.prompt[-40:]!r} gives none")
    if len(set(completions)) < len(set(example.choices)):
        raise InputError(f"choices must differ in tokens, but this tokenizer gives the same for two of {example.choices}: reword them")
    first = prompt[:1] if prompt[0] == bos_id else ()  # models trained with it lose much without it
    longest = max(map(len, completions))
    room = max_tokens - longest - len(first)
    if room < 1:
        if example.choices:
            raise InputError(
                f"`max_tokens` must have room for a choice and its prompt, but got {max_tokens} and a choice of {longest} tokens "
                f"after {example.prompt[-40:]!r}: raise it"
            )
        completions = [completions[0][: max(1, max_tokens - len(first) - 1)]]
        room = 1
    rest = prompt[len(first) :]
    return EncodedExample(first + rest[-room:], tuple(completions), example.gold)


def _ended(completion: tuple[int, ...], eos_id: int | None) -> tuple[int, ...]:
    return completion if eos_id is None or completion[-1:] == (eos_id,) else (*completion, eos_id)


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens agree."""
    length = min(len(left), len(right))
    return next((place for place in range(length) if left[place] != right[place]), length)


def _padded_left(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows])


def _candidates(encoded: Sequence[EncodedExample]) -> torch.Tensor:
    """R×C, filled up on the right, so that a column is a choice's index."""
    width = max(len(example.completions) for example in encoded)
    rows = [[completion[0] for completion in example.completions] for example in encoded]
    return torch.tensor([row + [IGNORED] * (width - len(row)) for row in rows])
