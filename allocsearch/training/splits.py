"""Which rows are trained on, searched on and tested on, and in which order: all of it by keyed hash.

So nothing here depends on a library's random numbers, on the order of a file, or on the allocation that is trained. The parts go by a
hash of the prompt: rows with the same prompt fall into one part, so that nothing leaks, and a new row does not move the old ones.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from allocsearch.core.errors import InputError
from allocsearch.training.examples import Example

TRAIN_SHARE: Final = 0.8
SEARCH_SHARE: Final = 0.1  # the rest is for the test

# One key per purpose: the parts, the order and the batches must not be correlated.
_SPLIT_KEY: Final = b"allocsearch/v1/split"
_ORDER_KEY: Final = b"allocsearch/v1/order"
_BATCH_KEY: Final = b"allocsearch/v1/batch"


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows in three parts, each in hash order; `num_leaked` rows were dropped because a test row has their prompt."""

    train: tuple[Example, ...]
    search: tuple[Example, ...]
    test: tuple[Example, ...]
    num_leaked: int = 0


def split(examples: Iterable[Example], test: Iterable[Example] | None = None) -> Parts:
    """Split rows 80/10/10, or, where there are test rows of their own, 8 to 1 after dropping those that also stand in the test.

    Raises:
        InputError: where a part would be empty.
    """
    own_test = None if test is None else tuple(test)
    tested = frozenset() if own_test is None else frozenset(normalised(example.prompt) for example in own_test)
    total = 1.0 if own_test is None else TRAIN_SHARE + SEARCH_SHARE
    found: dict[str, list[Example]] = {"train": [], "search": [], "test": []}
    num_rows = num_leaked = 0
    for example in examples:
        num_rows += 1
        prompt = normalised(example.prompt)
        if prompt in tested:
            num_leaked += 1
        else:
            found[_part_of(prompt, total=total)].append(example)
    parts = Parts(
        train=in_hash_order(found["train"]),
        search=in_hash_order(found["search"]),
        test=in_hash_order(found["test"] if own_test is None else own_test),
        num_leaked=num_leaked,
    )
    if not (parts.train and parts.search and parts.test):
        raise InputError(
            f"each part of a task must have rows, but {num_rows} rows ({num_leaked} of them also in the test data) give "
            f"{len(parts.train)} to train, {len(parts.search)} to search and {len(parts.test)} to test: give more rows"
        )
    return parts


def in_hash_order(examples: Iterable[Example], *, seed: int | None = None) -> tuple[Example, ...]:
    """The examples in an order that their contents give, another one for each seed; equal rows stand together."""
    salt = b"" if seed is None else str(seed).encode()

    def place(example: Example) -> tuple[bytes, str, tuple[str, ...], str]:
        return _digest(_ORDER_KEY, normalised(example.prompt), salt=salt), example.prompt, example.choices, str(example.answer)

    return tuple(sorted(examples, key=place))


def select(examples: Iterable[Example], num_rows: int, *, seed: int) -> tuple[Example, ...]:
    """At most `num_rows` of the examples, drawn by `seed`: more rows extend fewer rows."""
    if num_rows < 1:
        raise InputError(f"`num_rows >= 1` must hold, but got {num_rows}")
    return in_hash_order(examples, seed=seed)[:num_rows]


def batches(num_rows: int, batch_size: int, *, seed: int, num_steps: int) -> Iterator[list[int]]:
    """Row indices of `num_steps` full batches: one shuffle of all rows after the other, the same for every allocation.

    Raises:
        InputError: where there are no rows or batches have no size.
    """
    if num_rows < 1 or batch_size < 1:
        raise InputError(f"`num_rows >= 1` and `batch_size >= 1` must hold, but got {num_rows} and {batch_size}")
    pending: list[int] = []
    epoch = 0
    for _ in range(num_steps):
        while len(pending) < batch_size:
            pending += _shuffled(num_rows, salt=f"{seed}/{epoch}".encode())
            epoch += 1
        yield pending[:batch_size]
        pending = pending[batch_size:]


def normalised(prompt: str) -> str:
    """`prompt` without what a reader would overlook: case, spacing, and the forms of equal characters."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _part_of(prompt: str, *, total: float) -> str:
    place = int.from_bytes(_digest(_SPLIT_KEY, prompt)) / 2**64 * total
    if place < TRAIN_SHARE:
        return "train"
    return "search" if place < TRAIN_SHARE + SEARCH_SHARE else "test"


def _shuffled(num_rows: int, *, salt: bytes) -> list[int]:
    return sorted(range(num_rows), key=lambda row: _digest(_BATCH_KEY, str(row), salt=salt))


def _digest(key: bytes, text: str, *, salt: bytes = b"") -> bytes:
    """Eight bytes. The salt is hashed in front rather than passed to blake2b, which takes no more than sixteen bytes of it."""
    return blake2b(salt + b"\x00" + text.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
