"""Budget-aware evolution as an Optuna sampler; on parameters that no budget binds, plain evolution."""

import random
import secrets
from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from allocsearch.backends.distributions import distribution
from allocsearch.search.evolution import Individual, child, parents
from allocsearch.search.proposals import Proposals

AIM: Final = "aim"
"""User attribute of a trial that stands for that of another number, as where another study numbers the trials."""


class EvolutionSampler(BaseSampler):
    """Regularised evolution (Real et al. 2019, arXiv 1802.01548), for one objective or several.

    With `proposals`, the parameters that are its space's dimensions are bred together, on the target of the trial's number. Any other
    numbers or categories are taken from two parents, and now and then drawn anew. The same seed, number and history give the same
    values, in whatever order trials are asked for.

    Args:
        proposals: the space, its budget and its ladder of targets; None where no budget binds anything.
        population_size: how many of the youngest finished trials may breed.
        num_startup_trials: finished trials to wait for before breeding; until then values are random.
        seed: of all choices; None draws one.
    """

    def __init__(
        self, proposals: Proposals | None = None, *, population_size: int = 20, num_startup_trials: int = 10, seed: int | None = None
    ) -> None:
        if population_size < 1 or num_startup_trials < 0:
            raise ValueError(
                f"`population_size >= 1` and `num_startup_trials >= 0` must hold, but got {population_size} and {num_startup_trials}"
            )
        self._proposals = proposals
        self._population, self._num_startup = population_size, num_startup_trials
        self._seed = secrets.randbits(31) if seed is None else seed
        self._bound: dict[str, BaseDistribution] = {d.name: distribution(d) for d in proposals.space.dimensions} if proposals else {}

    def reseed_rng(self) -> None:
        """Another seed, for another process."""
        self._seed = secrets.randbits(31)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """The space's dimensions, and what those that may breed have in common: comparing all finished trials would grow with the study."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return intersection_search_space(finished[-self._population :]) | self._bound

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """The child of two good finished trials; random values before there are enough."""
        rng = random.Random(f"{self._seed}/{_number(trial)}")  # noqa: S311 - not a secret
        trials = self._youngest(study, search_space)
        grown = len(trials) >= max(1, self._num_startup)
        pair = parents(trials, rng, population=self._population) if grown else None
        values = self._plain(pair, study, trial, search_space, rng)
        if self._proposals is not None and search_space.keys() >= self._bound.keys():
            values |= self._budgeted(self._proposals, pair, trial, rng)
        return values

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """A random value."""
        seed = random.Random(f"{self._seed}/{_number(trial)}/{param_name}").getrandbits(31)  # noqa: S311 - not a secret
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def _youngest(self, study: Study, search_space: dict[str, BaseDistribution]) -> Sequence[Individual]:
        """The youngest complete trials that have every parameter of `search_space`, oldest first, as many as anybody asks for."""
        signs = [1.0 if direction == StudyDirection.MINIMIZE else -1.0 for direction in study.directions]
        finished = reversed(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        able = (trial for trial in finished if trial.params.keys() >= search_space.keys())
        youngest = list(islice(able, max(self._population, self._num_startup)))
        return [
            Individual(trial.params, tuple(sign * value for sign, value in zip(signs, trial.values, strict=True)))
            for trial in reversed(youngest)
        ]

    def _budgeted(
        self, proposals: Proposals, pair: tuple[Individual, Individual] | None, trial: FrozenTrial, rng: random.Random
    ) -> dict[str, Any]:
        target = proposals.target(_number(trial))
        space = proposals.space
        if pair is None:
            return space.project_point(space.sample(rng), target)
        first, second = ({name: one.point[name] for name in self._bound} for one in pair)
        return child(space, (first, second), target, rng)

    def _plain(
        self,
        pair: tuple[Individual, Individual] | None,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        rng: random.Random,
    ) -> dict[str, Any]:
        """Each value from either parent, and now and then drawn anew; where no capacity moves, at least one of them is."""
        free = {name: own for name, own in search_space.items() if name not in self._bound}
        anew = {name for name in free if pair is None or rng.random() < 1 / len(search_space)}
        if free and not self._bound:
            anew.add(rng.choice(list(free)))
        return {
            name: self.sample_independent(study, trial, name, own) if pair is None or name in anew else rng.choice(pair).point[name]
            for name, own in free.items()
        }


def _number(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(AIM, trial.number))
