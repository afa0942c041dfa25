"""The expert kind `glu`: Up(SiLU(Gate x) * Down x), without biases. Importing it is light; torch waits until a model is built."""

from typing import Any

from allocsearch import ExpertKind


def parameters(hidden_size: int, size: int) -> int:
    """Three matrices of size × hidden size."""
    return 3 * size * hidden_size


def build(hidden_size: int, size: int) -> Any:
    """A new expert; it gives zeros."""
    from allocsearch_glu.module import GatedAdapter  # noqa: PLC0415 - imports torch

    return GatedAdapter(hidden_size, size)


GLU = ExpertKind("glu", parameters, build)
