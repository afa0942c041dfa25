"""The `limits` section of a study: when to give up, and what all of it may cost."""

from typing import Annotated, Final

from pydantic import Field

from allocsearch.space_spec import Closed, Positive

SPENDING: Final = ("max_hours", "max_gpu_hours", "max_tokens")
"""The limits that a resume may change: they end a study, and change nothing of what it finds before."""
NEUTRAL: Final = (*SPENDING, "checkpoint_seconds")
"""Those that are no part of a study's digest: a trial that goes on from a checkpoint ends as it would have ended."""


class LimitsSpec(Closed):
    """When to try again, when to give up, and what the study may spend. A trial under way is kept every `checkpoint_seconds`; null: never.

    Spending is counted from the stored trials of the search and of what follows it, so that it goes on over all drivers that a study ever
    has. `max_hours` is time in which at least one trial was training, pauses between drivers not counted; `max_gpu_hours` adds up the
    GPUs of the trials, where a half counts as half; `max_tokens` are those trained on, padding not counted. Once one of these is reached
    no further trial begins, and the search ends with what it has; trials that are running by then end in their own time.
    """

    max_attempts: Positive = 3
    checkpoint_seconds: Annotated[float, Field(ge=0)] | None = 120.0
    max_failed_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_hours: Annotated[float, Field(gt=0)] | None = None
    max_gpu_hours: Annotated[float, Field(gt=0)] | None = None
    max_tokens: Positive | None = None
