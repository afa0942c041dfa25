"""Searches without engines: the samplers as a study uses them, and, for comparison, without projection. Shared by the benchmarks."""

import numpy as np
import optuna
from optuna.trial import TrialState

from allocsearch.backends.distributions import distribution
from allocsearch.backends.optuna_quiet import experimental
from allocsearch.backends.optuna_sampling import candidates, optuna_sampler, proposer

optuna.logging.set_verbosity(optuna.logging.ERROR)

LEARNERS = ("tpe", "nsga2", "evolution")
MAX_REJECTED, MAX_PENALISED = 200, 20


def projected(name, proposals, evaluate, *, num_trials, seed, directions=("maximize",)):
    """The points of a search by sampler `name`, each trained once; `evaluate(point, number)` gives a trial's values."""
    mirror = proposer(name, proposals=proposals, directions=directions, num_trials=num_trials, seed=seed)
    points = []
    for number in range(num_trials):
        fresh = ((point, notes) for _, point, notes in candidates(mirror, proposals, number) if point not in points)
        point, notes = next(fresh)
        points.append(point)
        if mirror is not None:
            mirror.start(number, point, notes or {})
            mirror.finish(number, TrialState.COMPLETE, evaluate(point, number))
    return points


def unprojected(name, space, budget, evaluate, *, num_trials, seed):
    """The same without projection: a wish outside the budget is asked for again, at no cost but the asking; None where none came inside.

    A sampler that learns is told a penalty, minus its excess relative to the budget; the others' wishes are rejected without a word.
    """
    learns = name in LEARNERS
    with experimental():
        plain = (
            optuna_sampler(name, proposals=None, num_trials=num_trials, seed=seed) if learns else optuna.samplers.RandomSampler(seed=seed)
        )
    study = optuna.create_study(direction="maximize", sampler=plain)
    distributions = {d.name: distribution(d) for d in space.dimensions}
    known, points = {}, []
    for number in range(num_trials):
        points.append(None)
        for _ in range(MAX_PENALISED if learns else MAX_REJECTED):
            trial = study.ask(fixed_distributions=distributions)
            point = space.snap(trial.params)
            key = tuple(point.values())
            over = budget.excess(space.cost(point)).get("trainable", 0)
            is_new = not over and key not in known
            if is_new:
                known[key], points[-1] = evaluate(point, number)[0], point
            study.tell(trial, -over / budget.max_trainable if over else known[key])
            if is_new:
                break
    return points


def interval(values, *, num_resamples=4000, seed=0):
    """The mean and its 95 % percentile bootstrap interval over repetitions."""
    values = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (num_resamples, len(values)))].mean(axis=1)
    return float(values.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))


def cell(found):
    """A mean with its interval, for a table."""
    mean, low, high = found
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def verdict(found, *, better):
    """A paired difference with its interval, and in words what it says; `better` is `larger` or `smaller`."""
    _, low, high = found
    word = "not distinguishable" if low <= 0 <= high else ("better" if (low > 0) is (better == "larger") else "worse")
    return f"{found[0]:+.2f} [{low:+.2f}, {high:+.2f}], {word}"
