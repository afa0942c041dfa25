"""What `compare` prints: the winner's leads over the baselines."""

from typing import Literal

from allocsearch.core.choices import Metric
from allocsearch.outputs.rows import Count, Interval, PointRow, Share, Sized
from allocsearch.space_spec import Closed


class ConfirmedRow(Sized):
    """An allocation with fresh seeds on the test rows; `trial` is null for a baseline that the search did not train."""

    label: str
    trial: int | None
    origin: str
    accuracy: Share
    interval: Interval
    nll: float
    accuracy_by_seed: dict[str, Share]
    rows: Count
    seconds: float
    is_baseline: bool


class Lead(Closed):
    """The winner's lead over a baseline, paired, in shares of accuracy or in nats."""

    difference: float
    interval: Interval
    p_value: float
    p_adjusted: float
    verdict: Literal["better", "worse", "not distinguishable"]
    seeds: tuple[int, ...]
    rows: Count
    covers_seeds: bool


class SearchLead(Lead):
    """Over a baseline of the search."""

    baseline: PointRow


class ConfirmedLead(Lead):
    """Over a confirmed baseline."""

    baseline: ConfirmedRow


class MarginStep(Closed):
    """One test of the sequence that ends at the smallest allocation not worse by the margin."""

    label: str
    trainable: Count
    difference: float
    lower: float
    p_value: float
    passed: bool


class SmallestAnswer(Closed):
    """The smallest allocation that is not worse than the reference by more than the margin; null where none is shown to be."""

    margin: float
    reference: ConfirmedRow
    allocation: ConfirmedRow | None
    sequence: tuple[MarginStep, ...]
    resolvable: float | None
    remark: str | None


class CompareOutput(Closed):
    """`compare` on the search rows."""

    study: str
    split: Literal["search"]
    metric: Metric
    winner: PointRow
    comparisons: tuple[SearchLead, ...]


class EvidenceOutput(Closed):
    """`compare` on the test rows, once the study is confirmed."""

    study: str
    split: Literal["test"]
    metric: Metric
    winner: ConfirmedRow
    confirmed: tuple[ConfirmedRow, ...]
    comparisons: tuple[ConfirmedLead, ...]
    smallest: SmallestAnswer | None
