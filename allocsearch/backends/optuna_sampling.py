"""What proposes under each sampler's name, and how its proposals become points inside the budget."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, Literal

from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

from allocsearch.backends.evolution_sampler import EvolutionSampler
from allocsearch.backends.quasi_random import SobolSequence
from allocsearch.backends.sampler_mirror import Direction, SamplerMirror
from allocsearch.search.proposals import Proposals
from allocsearch.spec import Sampler

_PROPOSAL_ATTEMPTS: Final = 8
_RANDOM_ATTEMPTS: Final = 200


def candidates(
    mirror: SamplerMirror | SobolSequence | None, proposals: Proposals, number: int
) -> Iterator[tuple[int, dict[str, int], dict[str, Any] | None]]:
    """Projected points for trial `number`, each with the trial number whose target it aims at, and the sampler's notes.

    Without notes where random proposals step in for a sampler that repeats itself: at the trial's own target first, then,
    where all that reach it are known, at the other targets.
    """
    if mirror is not None:
        for attempt in range(_PROPOSAL_ATTEMPTS):
            values, notes = mirror.propose(number, attempt)
            yield number, proposals.projected(values, number), notes
    window = range(number, number + 2 * len(proposals.shares))  # holds a whole round of targets
    aims = {proposals.share(aim): aim for aim in reversed(window)}
    for aim in sorted(aims.values()):
        for attempt in range(_RANDOM_ATTEMPTS):
            yield aim, proposals.random(aim, attempt), None


def proposer(
    name: Sampler, *, proposals: Proposals, directions: Sequence[Direction], num_trials: int, seed: int, batch: int | None = None
) -> SamplerMirror | SobolSequence | None:
    """What proposes for a study of `num_trials`; None for random proposals, which need no memory."""
    dimensions = proposals.space.dimensions
    if name == "random":
        return None
    if name == "quasi-random":
        return SobolSequence(dimensions=dimensions, seed=seed)
    return SamplerMirror(partial(_sampler, name, proposals, num_trials), dimensions, directions, seed, batch)


def _sampler(name: Literal["tpe", "nsga2", "evolution"], proposals: Proposals, num_trials: int, seed: int) -> BaseSampler:
    return optuna_sampler(name, proposals=proposals, num_trials=num_trials, seed=seed)


def optuna_sampler(name: Literal["tpe", "nsga2", "evolution"], *, proposals: Proposals | None, num_trials: int, seed: int) -> BaseSampler:
    """The sampler that learns as `name` says, for a study of `num_trials`; `proposals` makes evolution aware of the budget."""
    population = min(50, max(8, num_trials // 5))
    startup = min(10, max(4, num_trials // 3))
    match name:
        case "nsga2":
            return NSGAIISampler(population_size=population, seed=seed)
        case "evolution":
            return EvolutionSampler(proposals, population_size=population, num_startup_trials=startup, seed=seed)
        case "tpe":
            return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=startup, seed=seed)
