"""What a sampler sees of a study: the points that were really trained, and no more of them than it can look through.

A sampler proposes freely; the study projects its proposal onto the budget and stores the projected point. So that samplers learn
from that point and not from their own wish, they run on a private in-memory study that mirrors the real one: a proposal is
asked for and withdrawn there, and the projected trial takes its place.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from allocsearch.backends.distributions import distribution
from allocsearch.backends.evolution_sampler import AIM
from allocsearch.backends.optuna_quiet import experimental
from allocsearch.core.layout import Dimension

Direction = Literal["maximize", "minimize"]

WINDOW: Final = 1000
_BLOCK: Final = 250
NONE: Final[Mapping[str, Any]] = MappingProxyType({})
_GENERATION: Final = ":generation"
_PARENTS: Final = ":parent:"
_CONSTRAINTS: Final = "constraints"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A trial as the sampler sees it. `notes` are the sampler's own."""

    number: int
    params: Mapping[str, int]
    notes: Mapping[str, Any]
    state: TrialState = TrialState.RUNNING
    values: tuple[float, ...] | None = None


@dataclass
class SamplerMirror:
    """One sampler and the trials that it sees.

    What is proposed for trial `number` depends on the seed, the number and the study, and on nothing else: neither on how many drivers
    the study has had, nor on what was proposed before. The sampler sees

    - the trials with the newest numbers, from `WINDOW` to `WINDOW + block - 1` of them, those that failed left out;
    - of those before them, the ones that are still running, and the Pareto front of the ended ones;
    - with `batch`, the trials of the same batch (numbers from `batch * k` to `batch * (k + 1) - 1`) as running, ended or not.

    Args:
        make: a new sampler with a seed of its own.
        dimensions: of the space.
        directions: of the objectives.
        seed: of all proposals.
        batch: trials that are proposed from the same ended ones; None where each counts as soon as it ends.
        window, block: see above.
    """

    make: Callable[[int], BaseSampler]
    dimensions: Sequence[Dimension]
    directions: Sequence[Direction]
    seed: int
    batch: int | None = None
    window: int = WINDOW
    block: int = _BLOCK
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _ended: dict[int, _Seen] = field(default_factory=dict)
    _first: int = 0
    _stale: bool = True

    def __post_init__(self) -> None:
        self.distributions: dict[str, BaseDistribution] = {d.name: distribution(d) for d in self.dimensions}

    def propose(self, number: int, attempt: int = 0) -> tuple[dict[str, float], dict[str, Any]]:
        """Raw values per dimension for trial `number`, and the sampler's own notes, which belong to the trial that comes of it."""
        self._look_from(number)
        self._forget_parents()
        with experimental():
            self._study.sampler = self.make(random.Random(f"{self.seed}/{number}/{attempt}").getrandbits(31))  # noqa: S311 - not a secret
            self._study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={AIM: number}))
            trial = self._study.ask(fixed_distributions=self.distributions)
        notes = dict(self._study.get_trials(deepcopy=False)[trial.number].system_attrs)
        self._study.tell(trial, state=TrialState.FAIL)
        return {name: float(value) for name, value in trial.params.items()}, _moved(notes, by=self._oldest)

    def start(self, number: int, params: Mapping[str, int], notes: Mapping[str, Any]) -> None:
        """Trial `number` is running at `params`."""
        self._stale |= bool(self._seen) and number < next(reversed(self._seen))  # they are in the order of their numbers
        self._seen[number] = _Seen(number, params, notes)
        if not self._stale:
            self._show(self._seen[number])

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None, notes: Mapping[str, Any] = NONE) -> None:
        """Trial `number` ended. A trial that the space does not express was never started here, and is passed over.

        `notes` are system attributes, such as the constraint that an infeasible trial breaks.
        """
        seen = self._seen.get(number)
        if seen is not None:
            self._ended[number] = replace(
                seen, state=state, values=None if values is None else tuple(values), notes={**seen.notes, **notes}
            )

    def replay(self, trial: FrozenTrial) -> None:
        """Take in a trial of the real study, in whatever state."""
        if trial.params.keys() != self.distributions.keys() or trial.state == TrialState.WAITING:
            return
        notes = {key: value for key, value in trial.system_attrs.items() if _GENERATION in key}
        self.start(trial.number, trial.params, notes)
        if trial.state.is_finished():
            broken = {key: value for key, value in trial.system_attrs.items() if key == _CONSTRAINTS}
            self.finish(trial.number, trial.state, trial.values if trial.state == TrialState.COMPLETE else None, broken)

    def _look_from(self, number: int) -> None:
        """Make the private study what trial `number` is to be proposed from."""
        known_until = number if self.batch is None else number // self.batch * self.batch
        for ended in sorted(n for n in self._ended if n < known_until):
            self._end(self._ended.pop(ended))
        first = max(0, (number - self.window) // self.block * self.block)
        if self._stale or first > self._first:
            self._begin_anew(first)

    def _end(self, seen: _Seen) -> None:
        if seen.state == TrialState.FAIL:
            del self._seen[seen.number]
        else:
            self._seen[seen.number] = seen
        if seen.number < self._first:
            self._stale = True
        elif not self._stale:
            self._tell(seen)

    def _tell(self, seen: _Seen) -> None:
        shown = self._shown[seen.number]
        storage, trial_id = self._study._storage, self._study.get_trials(deepcopy=False)[shown]._trial_id  # noqa: SLF001 - our own study
        if _CONSTRAINTS in seen.notes:
            storage.set_trial_system_attr(trial_id, _CONSTRAINTS, seen.notes[_CONSTRAINTS])
        self._study.tell(shown, values=seen.values, state=seen.state)

    def _forget_parents(self) -> None:
        """A genetic sampler keeps each generation's parents as first chosen: in another order, and without those that ended later."""
        storage, study_id = self._study._storage, self._study._study_id  # noqa: SLF001 - nothing public unsets a study's attribute
        for key in storage.get_study_system_attrs(study_id):
            if _PARENTS in key:
                storage.set_study_system_attr(study_id, key, None)

    def _begin_anew(self, first: int) -> None:
        old = [seen for seen in self._seen.values() if seen.number < first]
        kept = [*(seen for seen in old if seen.state == TrialState.RUNNING), *self._front(old)]
        kept += [seen for seen in self._seen.values() if seen.number >= first]
        self._seen = {seen.number: seen for seen in sorted(kept, key=lambda seen: seen.number)}
        self._first, self._stale = first, False
        self._oldest = min((_generation(seen.notes) for seen in kept if seen.number >= first), default=0)
        self._study = optuna.create_study(directions=list(self.directions))
        self._shown: dict[int, int] = {}
        for seen in self._seen.values():
            self._show(seen)

    def _show(self, seen: _Seen) -> None:
        self._shown[seen.number] = len(self._study.get_trials(deepcopy=False))
        self._study.add_trial(
            create_trial(
                state=seen.state,
                params=dict(seen.params),
                distributions=self.distributions,
                system_attrs=_moved(seen.notes, by=-self._oldest),
                values=seen.values,
            )
        )

    def _front(self, trials: Iterable[_Seen]) -> list[_Seen]:
        """Those that none dominates, of one objective or two; of equals the earliest stands for all."""
        signs = [1 if direction == "minimize" else -1 for direction in self.directions]
        rated = [([sign * value for sign, value in zip(signs, t.values, strict=True)], t.number, t) for t in trials if t.values is not None]
        front: list[_Seen] = []
        lowest = float("inf")
        for losses, _, trial in sorted(rated, key=lambda one: one[:2]):
            if losses[-1] < lowest:
                front.append(trial)
                lowest = losses[-1]
        return front


def _generation(notes: Mapping[str, Any]) -> int:
    return next((int(value) for key, value in notes.items() if _GENERATION in key), 0)


def _moved(notes: Mapping[str, Any], *, by: int) -> dict[str, Any]:
    """A genetic sampler goes back through all generations before it, so that the oldest that it sees must be its first."""
    return {key: max(0, value + by) if _GENERATION in key else value for key, value in notes.items()}
