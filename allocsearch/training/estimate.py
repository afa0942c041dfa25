"""How long a trial will take, roughly, before anything is loaded: from the model's size and this machine's own speed."""

import time
from typing import Final

import torch

from allocsearch.core.geometry import ModelShape
from allocsearch.spec import ProxySpec

_TOKENS_PER_ROW: Final = 48
"""Of a typical short prompt, padding included; a task with long rows takes proportionally longer."""

_TRAIN_PASSES: Final = 2.6
"""Forward, backward to the inputs, and the adapters' own share, in forward passes of the frozen base."""

_EFFICIENCY: Final = 0.35
"""Of a large matrix product's speed, which a whole model reaches."""

_SIZE: Final = 768
_REPEATS: Final = 8


def seconds_of_trial(shape: ModelShape, proxy: ProxySpec) -> float:
    """Worker seconds of one trial. A rough guess: it knows neither the task's row lengths nor the machine's other load."""
    train_tokens = proxy.num_steps * proxy.batch_size * _TOKENS_PER_ROW
    score_tokens = (proxy.search_rows + len(proxy.rungs) * proxy.search_rows) * _TOKENS_PER_ROW
    flops = 2.0 * shape.num_parameters * (train_tokens * _TRAIN_PASSES + score_tokens) * len(proxy.seeds)
    return flops / (_EFFICIENCY * _flops_per_second(proxy.dtype))


def _flops_per_second(dtype: str) -> float:
    """Measured on one matrix product, on the device and with the threads that a worker gets."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    square = torch.ones(_SIZE, _SIZE, dtype=getattr(torch, dtype), device=device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (square @ square).sum().item()
        start = time.perf_counter()
        for _ in range(_REPEATS):
            product = square @ square
        product.sum().item()
        return float(_REPEATS * 2 * _SIZE**3 / (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
