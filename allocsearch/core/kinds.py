"""`ExpertKind`: what a plug-in says about a kind of expert that this package does not know."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from allocsearch.core.errors import InputError, quoted
from allocsearch.core.targets import GROUP_OF, GROUPS

ENTRY_POINTS: Final = "allocsearch.experts"
"""The group of entry points that plug-ins are found by."""

_NAME: Final = re.compile(r"^[a-z][a-z0-9_]{0,31}$")
_TAKEN: Final = frozenset({"all", "lora", "parallel", "prompt", *GROUPS, *GROUP_OF})


@dataclass(frozen=True, slots=True)
class ExpertKind:
    """A kind of expert that stands beside the FFN of a block, as MoA's parallel adapter does (arXiv 2506.05928).

    It reads the FFN's input; what it gives is weighed by the block's router and added to the FFN's output.

    Attributes:
        name: in plans and spaces, lower-case, such as `glu`; also the entry point's name.
        parameters: hidden size and the expert's size → trainable parameters of one expert, exactly.
        build: hidden size and the expert's size → a `torch.nn.Module` that maps tokens (T × hidden size) to the same shape. It should give
            zeros when it is new, so that training starts at the base model. Its weights are drawn under a seed of the expert's own.

    Raises:
        InputError: for a name that is taken or cannot stand in a plan.
    """

    name: str
    parameters: Callable[[int, int], int]
    build: Callable[[int, int], Any]

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or self.name in _TAKEN:
            raise InputError(f"an expert kind's name must be of a-z, 0-9 and _, and not be taken, but got {quoted(self.name)}")
