"""Rows that several outputs share.

Accuracies and intervals are shares from 0 to 1, NLL is in nats per row, times are in seconds, parameters are counts.
"""

from typing import Annotated

from pydantic import Field

from allocsearch.space_spec import Closed, RoutingSpec

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[float, float]


class Sized(Closed):
    """An allocation and its exact parameters."""

    allocation: str
    trainable: Count
    active: Count


class PointRow(Sized):
    """A finished trial on the search rows."""

    trial: Count
    routing: RoutingSpec
    accuracy: Share
    interval: Interval
    nll: float
    rows: Count
    seeds: tuple[int, ...]
    seconds: float
    origin: str
