"""Which promising trials get further seeds, and when to stop: a race over common seeds.

Contenders are trained with one seed after another, all with the same ones in the same order. After each seed, whoever is surely
behind the leader drops out; the others go on. It is the successive elimination of racing algorithms (Maron and Moore, 1994; Birattari
and others, 2002) on paired differences. Each test has the level α / ((contenders − 1) · rounds), so the chance that the contender which
is truly best, in the mean over seeds and rows, is ever dropped is at most α. All seeds are scored on the same rows, whose luck no
seed can undo: it counts in the tests, and the race ends when another seed would not sharpen the differences any further.

Everything is decided from recorded results, so a race that was interrupted goes on where it stood.

Shapes: K contenders, S seeds, R rows.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from allocsearch.core.choices import Metric
from allocsearch.search import student
from allocsearch.search.paired import own_squares
from allocsearch.search.replicates import Array, Replicated, table
from allocsearch.search.resolution import seed_df
from allocsearch.search.variance_components import mean_squares

ALPHA: Final = 0.05
MIN_GAIN: Final = 0.05
State = Literal["running", "one left", "seeds spent", "rows decide"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Of a race.

    Attributes:
        seeds: all that may be spent, in the order in which everyone is trained with them; those of the search come first.
        metric: what the race is about.
        alpha: chance that the best contender is dropped, at most.
        min_gain: the race ends when one more seed would shrink the differences' standard error by less than this share.
        within_size: a contender is dropped only by one that has no more parameters, for races along a Pareto front.
    """

    seeds: tuple[int, ...]
    metric: Metric = "accuracy"
    alpha: float = ALPHA
    min_gain: float = MIN_GAIN
    within_size: bool = False

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < 2:  # noqa: PLR2004 - a race compares seeds
            raise ValueError(f"`seeds` must be two or more, all distinct, but got {list(self.seeds)}")
        if not 0 < self.alpha < 1 or not 0 <= self.min_gain < 1:
            raise ValueError(f"`0 < alpha < 1` and `0 <= min_gain < 1` must hold, but got {self.alpha} and {self.min_gain}")


@dataclass(frozen=True, slots=True)
class Race:
    """Where a race stands.

    Attributes:
        state: `running`, or why it ended.
        contenders: the numbers still in it, the leader first.
        dropped: who fell behind, and after how many seeds.
        withdrawn: who could not be trained on some seed.
        num_seeds: how many seeds have been compared.
        missing: the trainings that the next comparison waits for, those under way included.
    """

    state: State
    contenders: tuple[int, ...]
    dropped: Mapping[int, int] = field(default_factory=dict)
    withdrawn: tuple[int, ...] = ()
    num_seeds: int = 0
    missing: tuple[tuple[int, int], ...] = ()


def race(promising: Sequence[Replicated], rules: Rules, *, given_up: AbstractSet[tuple[int, int]] = frozenset()) -> Race:
    """Replay the race from its first comparison.

    Args:
        promising: the contenders, which must stay the same for the whole race, with all their results so far, in any order.
        rules: of the race.
        given_up: trainings that failed for good; their trials withdraw.
    """
    alive = sorted(promising, key=lambda one: one.number)
    level = rules.alpha / max(1, len(alive) - 1) / (len(rules.seeds) - 1)
    dropped: dict[int, int] = {}
    withdrawn: list[int] = []
    for num_seeds in range(2, len(rules.seeds) + 1):
        seeds = rules.seeds[:num_seeds]
        withdrawn += [one.number for one in alive if any((one.number, seed) in given_up for seed in seeds)]
        alive = [one for one in alive if one.number not in withdrawn]
        if len(alive) < 2:  # noqa: PLR2004 - nobody to race with
            return Race("one left", tuple(one.number for one in alive), dropped, tuple(withdrawn), num_seeds - 1)
        missing = tuple((one.number, seed) for seed in seeds for one in alive if seed not in one.seeds)
        if missing:
            return Race("running", tuple(one.number for one in alive), dropped, tuple(withdrawn), num_seeds - 1, missing)
        values = table([one.scores for one in alive], seeds, rules.metric)
        beaten = _beaten(values, _rivals(alive, within_size=rules.within_size), level=level)
        dropped |= {one.number: num_seeds for one, lost in zip(alive, beaten, strict=True) if lost}
        order = np.argsort(-values.mean(axis=(1, 2)), kind="stable")
        ranked = tuple(alive[i].number for i in order if not beaten[i])
        alive = [one for one, lost in zip(alive, beaten, strict=True) if not lost]
        if len(alive) > 1 and _gain(values) < rules.min_gain:
            return Race("rows decide", ranked, dropped, tuple(withdrawn), num_seeds)
    return Race("one left" if len(alive) == 1 else "seeds spent", ranked, dropped, tuple(withdrawn), len(rules.seeds))


def _rivals(alive: Sequence[Replicated], *, within_size: bool) -> npt.NDArray[np.bool_]:
    """K×K: whether the column may drop the row."""
    params = np.array([one.params for one in alive])
    rivals = params[None, :] <= params[:, None] if within_size else np.ones((len(alive), len(alive)), dtype=np.bool_)
    return np.asarray(rivals & ~np.eye(len(alive), dtype=np.bool_))


def _beaten(values: Array, rivals: npt.NDArray[np.bool_], *, level: float) -> list[bool]:
    """Whether each is surely behind the best of its rivals: a lead beyond t and z of the seeds' and the rows' noise.

    Their squares add up (Banerjee, Sankhyā, 1961), which holds the level whatever the two noises' ratio is.
    """
    num_contenders, num_seeds, num_rows = values.shape
    means = values.mean(axis=(1, 2))
    leaders = [_leader(i, means, rivals[i]) for i in range(num_contenders)]
    squares = own_squares(values[leaders] - values)
    by_seed = np.maximum(squares.seeds, 2 * mean_squares(values).values[3])
    t = student.quantile(1 - level, seed_df(num_allocations=num_contenders, num_seeds=num_seeds))
    z = student.normal_quantile(1 - level)
    limit = np.sqrt((t**2 * by_seed + z**2 * squares.rows * squares.rows_share) / (num_seeds * num_rows))
    return [bool(lost) for lost in means[leaders] - means > limit]


def _leader(contender: int, means: Array, rivals: npt.NDArray[np.bool_]) -> int:
    """The best of its rivals; itself where it has none."""
    return int(np.argmax(np.where(rivals, means, -np.inf))) if rivals.any() else contender


def _gain(values: Array) -> float:
    """By which share one more seed would shrink the standard error of a difference over seeds and rows."""
    squares = mean_squares(values)
    num_seeds, num_rows = squares.shape[1:]
    by_seed = float(squares.values[3]) / num_rows
    by_row = max(0.0, float(squares.components[4])) / num_rows
    now, then = by_seed / num_seeds + by_row, by_seed / (num_seeds + 1) + by_row
    return 1 - math.sqrt(then / now) if now > 0 else 0.0
