"""Running out of memory, on a GPU or of the machine: telling it from other errors, and letting go of what a failed try held."""

import errno
import gc
from typing import Final

import torch

_SIGNS: Final = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was what lacked. PyTorch's own class covers its GPU allocator only; its CPU allocator raises a RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def release() -> None:
    """Free what nothing refers to any more, and give cached blocks back to the device. Call it outside the `except`: that holds frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
