"""The most memory that a worker may take: of the machine, and of a GPU that it shares."""

import resource

import psutil


def limit_memory(num_bytes: int | None, *, gpu_share: float) -> None:
    """The most that a worker may allocate, so that what a trial takes too much is its own error and not the death of its neighbours.

    Args:
        num_bytes: of main memory; None limits nothing. Enforced through what the process may write to (`RLIMIT_DATA`), not through its
            address space, of which CUDA and mapped files take many times what they use. What threads have reserved by now and not
            touched is left out of account. Systems other than Linux do not enforce it.
        gpu_share: of one GPU's memory, for a worker that shares it.
    """
    import torch  # noqa: PLC0415 - imported in the worker, where training needs it anyway

    if num_bytes is not None:
        held = psutil.Process().memory_info()
        reserved = getattr(held, "data", held.rss)  # `data` on Linux only
        most = reserved + max(0, num_bytes - held.rss)
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    if 0 < gpu_share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpu_share)
