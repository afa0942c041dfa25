"""The `resources` section of a study: what each trial takes of a machine."""

from typing import Annotated

from pydantic import Field, field_validator

from allocsearch.space_spec import Closed, Positive


class ResourcesSpec(Closed):
    """What each trial takes; what is not stated follows from the machine or, on a cluster, is one GPU where there are any and one thread.

    `gpus` may be a share of one. A worker then gets no more than that share of the GPU's memory. `memory_gb` (10⁹ bytes) is reserved on
    the node and is the most that the worker's process may allocate in main memory, on Linux; the base model's weights count.
    None of them is part of the study's digest, although `threads` is not wholly neutral: sums are rounded differently with another
    number of threads, as they are on another kind of processor.
    """

    gpus: Annotated[float, Field(ge=0, le=1024)] | None = None
    threads: Annotated[Positive, Field(le=1024)] | None = None
    memory_gb: Annotated[float, Field(gt=0, le=1_000_000)] | None = None

    @field_validator("gpus")
    @classmethod
    def _can_be_had(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"`gpus` above 1 must be a whole number, but got {gpus:g}")
        return gpus

    def overridden(self, other: "ResourcesSpec") -> "ResourcesSpec":
        """With what `other` states in place of what stands here."""
        return self.model_copy(update=other.model_dump(exclude_none=True))
