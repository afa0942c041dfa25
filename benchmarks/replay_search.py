"""One search on a table: a sampler, or none of its own mind, with or without published starting points and early stopping."""

from dataclasses import dataclass

import numpy as np
from optuna.trial import TrialState
from replay_table import Row, Table

from allocsearch.backends.optuna_sampling import candidates, proposer
from allocsearch.core.choices import Sampler
from allocsearch.core.trial import RungScore
from allocsearch.search.proposals import Proposals
from allocsearch.search.schedule import Halving
from allocsearch.spec import StudySpec

LADDER = StudySpec.model_fields["ladder"].default
INFORMATIVE = 0.5  # the mean rank correlation with the end from which halving trusts a rung


@dataclass(frozen=True)
class Strategy:
    """`halving`: None trains everything to its end; `asha` decides at every rung on accuracy alone; `ours` as a study does by default."""

    sampler: Sampler
    warm: bool = False
    halving: str | None = None


DEFAULT = "random-feasible + warm starts (default)"
STRATEGIES = {
    "random-feasible": Strategy("random"),
    "quasi-random": Strategy("quasi-random"),
    "TPE": Strategy("tpe"),
    "NSGA-II": Strategy("nsga2"),
    "evolution": Strategy("evolution"),
    "ASHA, one metric": Strategy("random", halving="asha"),
    DEFAULT: Strategy("random", warm=True),
    "TPE + warm starts": Strategy("tpe", warm=True),
    "TPE + warm starts + halving": Strategy("tpe", warm=True, halving="ours"),
    "evolution + warm starts": Strategy("evolution", warm=True),
    "evolution + warm starts + halving": Strategy("evolution", warm=True, halving="ours"),
    "evolution + halving": Strategy("evolution", halving="ours"),
}
ABLATIONS = (
    ("warm starts, random-feasible", DEFAULT, "random-feasible"),
    ("warm starts, TPE", "TPE + warm starts", "TPE"),
    ("warm starts, evolution", "evolution + warm starts", "evolution"),
    ("scheduling, TPE", "TPE + warm starts + halving", "TPE + warm starts"),
    ("scheduling, evolution", "evolution + halving", "evolution"),
)
"""What is ablated, the strategy with it, the strategy without it."""


@dataclass(frozen=True)
class Setting:
    """What all strategies share. `agreement` is each rung's mean rank correlation with the end of the same training."""

    num_trainings: int
    token_limit: int
    agreement: dict[int, float]
    first_rung: int

    @classmethod
    def of(cls, table: Table, *, num_trainings: int, token_limit: int) -> "Setting":
        agreement = _agreement(table)
        trusted = [step for step, value in agreement.items() if value >= INFORMATIVE]
        return cls(num_trainings, token_limit, agreement, min(trusted, default=max(agreement, default=0)))


@dataclass(frozen=True)
class Ended:
    """A trial of a search: its row, what the search saw of it (None where it was stopped), and the tokens spent in all by its end."""

    row: Row
    accuracy: float | None
    ended_at: int


def search(table: Table, strategy: Strategy, setting: Setting, *, mode: str, repetition: int) -> list[Ended]:
    """Trial by trial until the tokens are spent or the table is."""
    seen = table.seeds[repetition % len(table.seeds)]
    directions = ("maximize", "minimize") if mode == "pareto" else ("maximize",)
    proposals = Proposals(table.space, table.budget, LADDER if mode == "pareto" else (1.0,), repetition)
    mirror = proposer(strategy.sampler, proposals=proposals, directions=directions, num_trials=setting.num_trainings, seed=repetition)
    scheduler = _scheduler(strategy, setting, seen, mode)
    unseen, ended, spent = list(table.rows), [], 0
    starts = table.warm_starts if strategy.warm else []
    while unseen and spent < setting.token_limit:
        number, warm = len(ended), bool(starts)
        row, notes = (starts.pop(0), {}) if warm else _next(table, mirror, proposals, number, unseen)
        unseen.remove(row)
        tokens, accuracy = _train(row, seen, number, None if warm else scheduler)
        spent += tokens
        ended.append(Ended(row, accuracy, spent))
        if mirror is not None:
            state = TrialState.PRUNED if accuracy is None else TrialState.COMPLETE
            mirror.start(number, row.point, notes)
            mirror.finish(number, state, None if accuracy is None else [accuracy, float(row.trainable)][: len(directions)])
    return ended


def _next(table, mirror, proposals, number, unseen):
    """The row that stands for the next proposal."""
    _, point, notes = next(candidates(mirror, proposals, number))
    return table.nearest(point, unseen), notes or {}


def _train(row, seen, number, scheduler):
    """Tokens spent, and the final accuracy unless a rung ended it. Published starting points are never stopped, as in a study."""
    *rungs, last = row.reports[seen]
    for rung in rungs:
        score = RungScore(seen, rung.step, rung.accuracy, rung.nll)
        if scheduler is not None and not scheduler.go_on(number, score, params=row.trainable):
            return rung.tokens, None
    return last.tokens, last.accuracy


def _scheduler(strategy, setting, seen, mode):
    if strategy.halving is None or not setting.agreement:
        return None
    if strategy.halving == "asha":
        return Halving(seed=seen, first_rung=min(setting.agreement), by_nll=False, pareto=False)
    return Halving(seed=seen, first_rung=setting.first_rung, by_nll=mode == "pareto", pareto=mode == "pareto")


def _agreement(table: Table) -> dict[int, float]:
    """For each rung the rank correlation of its NLL with the final one of the same seed, averaged over seeds."""
    steps = [report.step for report in table.rows[0].reports[table.seeds[0]]][:-1]
    return {step: float(np.mean([_correlation(table, seed, i) for seed in table.seeds])) for i, step in enumerate(steps)}


def _correlation(table, seed, i):
    early, late = ([row.reports[seed][at].nll for row in table.rows] for at in (i, -1))
    return np.corrcoef(np.argsort(np.argsort(early)), np.argsort(np.argsort(late)))[0, 1]
