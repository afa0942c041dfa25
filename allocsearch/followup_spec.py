"""The `replication` and `confirmation` sections of a study: what follows a search."""

from typing import Annotated

from pydantic import Field

from allocsearch.space_spec import Closed, Positive


class ReplicationSpec(Closed):
    """Further seeds, common to all, for what looks best after a search, so that one lucky seed does not name the winner.

    The best `contenders` trials race: after each seed whoever is surely behind drops out, until each has `max_seeds` (those of
    `proxy.seeds` included) or the rows allow no more. No race where `contenders` is below 2.
    """

    contenders: Annotated[int, Field(ge=0)] = 4
    max_seeds: Annotated[int, Field(ge=2)] = 3


class ConfirmationSpec(Closed):
    """What is trained anew after a search, with fresh seeds and at full length, and scored on the test rows.

    `candidates` allocations that the search names and all of its baselines, each with `seeds` fresh seeds; nothing where `candidates`
    is 0. Before that, `random_trials` allocations are drawn at random and searched in the same way, and the best of them becomes a
    baseline: as many as the sampler itself proposed, unless said otherwise, so that both had equal compute. With a `margin`, in points of
    accuracy, the smallest allocation is named that is not worse than the winner by more.
    """

    candidates: Annotated[int, Field(ge=0)] = 3
    seeds: Positive = 3
    random_trials: Annotated[int, Field(ge=0)] | None = None
    margin: Annotated[float, Field(gt=0, lt=100)] | None = None
