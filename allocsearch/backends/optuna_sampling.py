"""Optuna's samplers, fed with what was really trained.

A sampler proposes freely; the study projects its proposal onto the budget and stores the projected point. So that samplers learn
from that point and not from their own wish, they run on a private in-memory study that mirrors the real one: a proposal is
asked for and withdrawn there, and the projected trial takes its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from allocsearch.backends.distributions import distribution
from allocsearch.backends.evolution_sampler import AIM, EvolutionSampler
from allocsearch.backends.optuna_quiet import experimental
from allocsearch.backends.quasi_random import SobolSequence
from allocsearch.core.layout import Dimension
from allocsearch.search.proposals import Proposals
from allocsearch.spec import Sampler

Direction = Literal["maximize", "minimize"]

_PROPOSAL_ATTEMPTS: Final = 8
_RANDOM_ATTEMPTS: Final = 200


class SamplerMirror:
    """One sampler and the trials that it knows."""

    def __init__(self, sampler: BaseSampler, *, dimensions: Sequence[Dimension], directions: Sequence[Direction]) -> None:
        self.distributions: dict[str, BaseDistribution] = {d.name: distribution(d) for d in dimensions}
        self._study = optuna.create_study(directions=list(directions), sampler=sampler)
        self._mirrored: dict[int, int] = {}

    def propose(self, number: int) -> tuple[dict[str, float], dict[str, Any]]:
        """Raw values per dimension for trial `number`, and the sampler's own notes, which belong to the trial that comes of it."""
        self._study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={AIM: number}))
        with experimental():
            trial = self._study.ask(fixed_distributions=self.distributions)
        notes = dict(self._study.get_trials(deepcopy=False)[trial.number].system_attrs)
        self._study.tell(trial, state=TrialState.FAIL)
        return {name: float(value) for name, value in trial.params.items()}, notes

    def start(self, number: int, params: Mapping[str, int], notes: Mapping[str, Any]) -> None:
        """Trial `number` is running at `params`."""
        self._mirrored[number] = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(
            create_trial(state=TrialState.RUNNING, params=dict(params), distributions=self.distributions, system_attrs=dict(notes))
        )

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None, notes: Mapping[str, Any] | None = None) -> None:
        """Trial `number` ended. A trial that the space does not express was never started here, and is passed over.

        `notes` are system attributes, such as the constraint that an infeasible trial breaks.
        """
        mirrored = self._mirrored.pop(number, None)
        if mirrored is not None:
            trial_id = self._study.get_trials(deepcopy=False)[mirrored]._trial_id  # noqa: SLF001 - the study is this object's own
            for key, value in (notes or {}).items():
                self._study._storage.set_trial_system_attr(trial_id, key, value)  # noqa: SLF001 - as above
            self._study.tell(mirrored, values=list(values) if values is not None else None, state=state)

    def replay(self, trial: FrozenTrial) -> None:
        """Take in a trial of the real study, in whatever state."""
        if trial.params.keys() != self.distributions.keys() or trial.state == TrialState.WAITING:
            return
        self.start(trial.number, trial.params, _notes_of(trial))
        if trial.state.is_finished():
            self.finish(trial.number, trial.state, trial.values if trial.state == TrialState.COMPLETE else None)


def candidates(
    mirror: SamplerMirror | SobolSequence | None, proposals: Proposals, number: int
) -> Iterator[tuple[int, dict[str, int], dict[str, Any] | None]]:
    """Projected points for trial `number`, each with the trial number whose target it aims at, and the sampler's notes.

    Without notes where random proposals step in for a sampler that repeats itself: at the trial's own target first, then,
    where all that reach it are known, at the other targets.
    """
    if mirror is not None:
        for _ in range(_PROPOSAL_ATTEMPTS):
            values, notes = mirror.propose(number)
            yield number, proposals.projected(values, number), notes
    window = range(number, number + 2 * len(proposals.shares))  # holds a whole round of targets
    aims = {proposals.share(aim): aim for aim in reversed(window)}
    for aim in sorted(aims.values()):
        for attempt in range(_RANDOM_ATTEMPTS):
            yield aim, proposals.random(aim, attempt), None


def _notes_of(trial: FrozenTrial) -> dict[str, Any]:
    return {key: value for key, value in trial.system_attrs.items() if ":generation" in key or key == "constraints"}


def proposer(
    name: Sampler, *, proposals: Proposals, directions: Sequence[Direction], num_trials: int, seed: int
) -> SamplerMirror | SobolSequence | None:
    """What proposes for a study of `num_trials`; None for random proposals, which need no memory."""
    dimensions = proposals.space.dimensions
    if name == "random":
        return None
    if name == "quasi-random":
        return SobolSequence(dimensions=dimensions, seed=seed)
    with experimental():
        sampler = optuna_sampler(name, proposals=proposals, num_trials=num_trials, seed=seed)
    return SamplerMirror(sampler, dimensions=dimensions, directions=directions)


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
