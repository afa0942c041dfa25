"""Where a trial came from: a sampler, a warm start by its name, or an earlier study."""

from typing import Final, get_args

from allocsearch.core.choices import Sampler

FROM_EARLIER: Final = "from:"
"""What the origin of a trial starts with that an earlier study found."""


def is_proposal(origin: str) -> bool:
    """Whether a sampler proposed the trials of this origin."""
    return origin in get_args(Sampler)


def is_baseline(origin: str) -> bool:
    """Whether nobody searched for the trials of this origin: neither this study's sampler nor an earlier study."""
    return not is_proposal(origin) and not origin.startswith(FROM_EARLIER)
