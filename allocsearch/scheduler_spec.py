"""The `scheduler` section of a study: which trials may end before their proxy does."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from allocsearch.core.errors import shown
from allocsearch.space_spec import Closed, Positive


class SchedulerSpec(Closed):
    """`none`: every trial runs to its end. `halving`: at each rung from `first_rung` on, the best share of 1/`eta` goes on.

    Rungs are the training steps in `proxy.rungs`, of the first seed. `first_rung` has no default, since halving at steps that don't
    predict the end throws good allocations away. Trials are compared by `metric`: the study's own objective, and in a Pareto study
    NLL, which parts allocations that equal many rows right, against trainable parameters; there the first front always goes on.
    Baselines are never stopped, since comparisons need them; what an earlier study found is none. Each rung scores all search rows
    once more, so stopping must save more than that.
    """

    kind: Literal["none", "halving"] = "none"
    eta: Annotated[Positive, Field(ge=2)] = 3
    first_rung: Positive | None = None
    metric: Literal["accuracy", "nll"] | None = None

    def check(self, rungs: Sequence[int], *, num_steps: int) -> None:
        """Raises ValueError where there is nothing to decide at."""
        if self.kind == "none":
            return
        reached = [step for step in rungs if step < num_steps]
        if not reached:
            raise ValueError(
                f"halving needs `proxy.rungs` below the proxy's {num_steps} steps, but got {list(rungs)}: "
                f"for instance [{max(1, num_steps // 2)}]"
            )
        if self.first_rung not in reached:
            raise ValueError(
                f"`first_rung` must be one of the rungs {shown(reached)} below the proxy's {num_steps} steps, "
                f"but got {self.first_rung}: take the first whose ranks predict the end"
            )
