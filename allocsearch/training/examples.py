"""What a model is trained and scored on: prompts with completions, and the three parts of a task."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Literal

from allocsearch.core.errors import InputError

Metric = Literal["choice", "exact_match"]

FINAL_ANSWER: Final = "####"
"""In a text answer, what stands before this mark is reasoning: it is trained on, but not compared."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a choice among `choices` with the right one's index, or, without choices, a text to generate."""

    prompt: str
    choices: tuple[str, ...]
    answer: int | str

    def __post_init__(self) -> None:
        if self.choices and (not isinstance(self.answer, int) or not 0 <= self.answer < len(self.choices)):
            raise InputError(f"`0 <= answer < {len(self.choices)}` must hold for {len(self.choices)} choices, but got {self.answer!r}")
        if not self.choices and not isinstance(self.answer, str):
            raise InputError(f"an example without choices must have a text answer, but got {self.answer!r}")

    @property
    def gold(self) -> int:
        """Index of the right one among `completions`."""
        return self.answer if isinstance(self.answer, int) else 0

    @property
    def completions(self) -> tuple[str, ...]:
        """What may follow the prompt, each with the space that joins it: every choice, or the one text answer."""
        texts = self.choices or (str(self.answer),)
        return tuple(text if self.prompt.endswith("\n") or text[:1].isspace() else f" {text}" for text in texts)


@dataclass(frozen=True, slots=True)
class Task:
    """A task's rows in three parts that share no prompt; a search sees `train` and `search`, never `test`.

    Each part is in an order given by hash, so that its first rows are a fair sample. `num_leaked` counts the rows that were left out
    of `train` and `search` because they also stand in a test file of its own.
    """

    name: str
    train: tuple[Example, ...]
    search: tuple[Example, ...]
    test: tuple[Example, ...]
    metric: Metric
    digest: str
    num_leaked: int = 0


def digest_of(metric: Metric, *parts: tuple[Example, ...]) -> str:
    """Sixteen hex digits that change with any row, its part or its place."""
    hashed = hashlib.sha256(metric.encode())
    for part in parts:
        hashed.update(b"\x00part")
        for example in part:
            hashed.update(repr((example.prompt, example.choices, example.answer)).encode())
    return hashed.hexdigest()[:16]


def same_answer(generated: str, answer: str) -> bool:
    """Whether a generated text gives `answer`: numbers by value, other texts without regard to case, spacing and a final stop.

    Where `answer` has `FINAL_ANSWER`, what follows the mark is compared; otherwise as many lines as `answer` has.
    """
    if FINAL_ANSWER in answer:
        answer = answer.rsplit(FINAL_ANSWER, 1)[1]
        if FINAL_ANSWER not in generated:
            return False
        generated = generated.split(FINAL_ANSWER, 1)[1]
    num_lines = len(answer.strip().splitlines())
    return _canonical(answer) == _canonical("\n".join(generated.strip().splitlines()[:num_lines]))


def _canonical(text: str) -> str | float:
    plain = " ".join(text.split()).casefold().rstrip(".").strip()
    number = re.sub(r"(?<=\d),(?=\d{3})", "", plain).lstrip("$")
    try:
        return float(number)
    except ValueError:
        return plain
