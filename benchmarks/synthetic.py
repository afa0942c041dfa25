"""Samplers on a problem whose optimum is known: how far from it they end, with projection and without.

    nice -n 10 python benchmarks/synthetic.py [--repetitions 30] [--trials 100]

Writes results/synthetic.json and .md. Each repetition is another instance of the knapsack in knapsack.py, the same for all strategies.
"""

import argparse
import datetime as dt
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from knapsack import NOISE, SPREAD, Knapsack, space_of
from sampling import cell, interval, projected, unprojected, verdict

from allocsearch.core.budget import Budget
from allocsearch.core.front import Candidate, hypervolume, pareto_front
from allocsearch.search.proposals import Proposals
from allocsearch.spec import StudySpec

RESULTS = Path(__file__).with_name("results")
CHECKPOINTS = (10, 20, 50, 100)
BUDGET_SHARE = 0.1  # of the space's largest point, as in the study quickstart
LADDER = StudySpec.model_fields["ladder"].default
CASES = [
    *(("budget", name, True) for name in ("random", "quasi-random", "tpe", "nsga2", "evolution")),
    *(("budget", name, False) for name in ("random", "tpe", "nsga2", "evolution")),
    *(("pareto", name, True) for name in ("random", "quasi-random", "tpe", "nsga2", "evolution")),
]


def instance(seed):
    """The instance of one repetition."""
    space = space_of(8, layers_per_group=1)
    return Knapsack(space, int(BUDGET_SHARE * space.cost(space.largest).trainable), seed)


def repetition(problem, mode, name, is_projected, num_trials):
    """One search; per checkpoint its gaps to the optimum in accuracy points and, in Pareto mode, its share of the exact hypervolume."""
    budget, seed = Budget(problem.budget), problem.seed
    directions = ("maximize", "minimize") if mode == "pareto" else ("maximize",)

    def evaluate(point, number):
        return [problem.measured(point, number), float(problem.space.cost(point).trainable)][: len(directions)]

    if is_projected:
        proposals = Proposals(problem.space, budget, LADDER if mode == "pareto" else (1.0,), seed)
        points = projected(name, proposals, evaluate, num_trials=num_trials, seed=seed, directions=directions)
    else:
        points = unprojected(name, problem.space, budget, evaluate, num_trials=num_trials, seed=seed)
    return [scores(problem, points[:n], mode) for n in CHECKPOINTS if n <= num_trials]


def scores(problem, points, mode):
    """What a user of these trials has: `named` is the allocation with the best measured score, `tried` the best one trained."""
    trials = [(problem.measured(point, i), problem.accuracy(point), point) for i, point in enumerate(points) if point is not None]
    optimum = problem.scaled(problem.optimum)
    frozen = (0.0, problem.scaled(0))  # what is left where nothing was trained
    found = {
        "named": round(100 * (optimum - max(trials, key=lambda trial: trial[0], default=frozen)[1]), 4),
        "tried": round(100 * (optimum - max((trial[1] for trial in trials), default=frozen[1])), 4),
        "trained": len(trials),
    }
    return found | ({"hypervolume": round(relative_hypervolume(problem, trials), 6)} if mode == "pareto" else {})


def relative_hypervolume(problem, trials):
    """The true hypervolume of the front that the measurements name, over that of the exact front; down to the frozen model's score."""
    costs = [problem.space.cost(point).trainable for _, _, point in trials]
    named = pareto_front([Candidate(i, trial[0], costs[i], (0, 1)) for i, trial in enumerate(trials)])
    true = [Candidate(c.number, trials[c.number][1], c.params, (0, 1)) for c in named]
    exact = [Candidate(i, problem.scaled(value), spent, (0, 1)) for i, (spent, value) in enumerate(problem.best_values)]
    limits = {"worst_score": problem.scaled(0), "max_params": problem.budget}
    return hypervolume(true, **limits) / hypervolume(exact, **limits)


def run(num_repetitions, num_trials):
    """Every case on every instance."""
    problems = [instance(seed) for seed in range(num_repetitions)]
    found = []
    for mode, name, is_projected in CASES:
        started = time.process_time()
        runs = [repetition(problem, mode, name, is_projected, num_trials) for problem in problems]
        seconds = (time.process_time() - started) / num_repetitions / num_trials
        print(f"{mode} {name} {'projected' if is_projected else 'raw'}: {1000 * seconds:.0f} ms a trial", flush=True)
        found.append({"mode": mode, "sampler": name, "projection": is_projected, "milliseconds": round(1000 * seconds, 1), "runs": runs})
    return found


def table(cases, what, *, better):
    """Markdown rows of one mode: mean and interval per checkpoint, and the paired difference to random-feasible at the last."""
    numbers = [n for n in CHECKPOINTS if n <= cases[0]["num_trials"]]
    last = [[run[-1][what] for run in case["runs"]] for case in cases]
    lines = [
        f"| sampler | projection | {' | '.join(f'{n} trials' for n in numbers)} | against random-feasible, paired |",
        f"|---|---|{'---|' * len(numbers)}---|",
    ]
    for case, values in zip(cases, last, strict=True):
        cells = [cell(interval([run[i][what] for run in case["runs"]])) for i in range(len(numbers))]
        difference = "" if values is last[0] else verdict(interval(np.subtract(values, last[0])), better=better)
        lines.append(f"| {case['sampler']} | {'on' if case['projection'] else 'off'} | {' | '.join(cells)} | {difference} |")
    return lines


PAGE = """# Samplers on a problem with a known optimum

{date}, {repetitions} instances × {trials} trials, seeds 0 to {last}; optuna {optuna}, numpy {numpy}, torch {torch}, python {python},
{cpu_seconds} s of CPU time. Command: `python benchmarks/synthetic.py --repetitions {repetitions} --trials {trials}`. Raw numbers:
`synthetic.json`.

Each instance is a knapsack over eight stretches of layers (experts 0, 1, 2, 4, 8 of rank 1, 2, 4, 8, 16: 21 to the power of 8 allocations)
with saturating worths and interactions between neighbours; its exact optimum comes from dynamic programming. The budget is {share:.0%} of
the largest point. Accuracy is scaled so that random allocations that use the budget up lie {spread:.0f} points below the optimum, on
average; a training adds normal noise of {noise:.1f} points. Brackets: 95 % bootstrap intervals over instances, not corrected for the
number of comparisons. Nothing was tuned on these instances.

## At one budget

Points between the optimum and the true accuracy of the allocation that a search *names*: the best measured one. Smaller is better.

{named}

The same for the best allocation *tried*, which no user could name without more trainings:

{tried}

Without projection, a wish over the budget trains nothing and costs nothing: a random one is drawn again up to 200 times; a learning
sampler is told a penalty, and asked again up to 20 times. Trials that were left with nothing to train: {wasted}.

What projection is worth to each sampler: *named* with it minus *named* without it, paired.

{ablation}

## The whole front

Targets from the ladder, 10 to 100 % of the budget. Per cent of the exact front's hypervolume that the named front truly has (down to
the frozen model's score, up to the budget). Larger is better.

{hypervolume}

Points between the optimum at the full budget and the named allocation, in the same searches. Smaller is better.

{pareto_named}
"""


def markdown(found):
    """The page."""
    cases = [{**case, "num_trials": found["num_trials"]} for case in found["cases"]]
    scalar, pareto = ([case for case in cases if case["mode"] == mode] for mode in ("budget", "pareto"))
    tables = {
        "named": table(scalar, "named", better="smaller"),
        "tried": table(scalar, "tried", better="smaller"),
        "ablation": ablation(scalar),
        "hypervolume": table([_in_percent(case) for case in pareto], "hypervolume", better="larger"),
        "pareto_named": table(pareto, "named", better="smaller"),
    }
    return PAGE.format(
        **found["about"],
        **{name: "\n".join(lines) for name, lines in tables.items()},
        repetitions=found["num_repetitions"],
        trials=found["num_trials"],
        last=found["num_repetitions"] - 1,
        share=BUDGET_SHARE,
        spread=100 * SPREAD,
        noise=100 * NOISE,
        wasted=", ".join(_wasted(case) for case in scalar if not case["projection"]),
    )


def _wasted(case):
    trained = np.mean([run[-1]["trained"] for run in case["runs"]])
    return f"{case['sampler']} {100 - 100 * trained / case['num_trials']:.0f} %"


def ablation(cases):
    """Markdown rows: projection on minus off, per sampler."""
    runs = {(case["sampler"], case["projection"]): case["runs"] for case in cases}
    numbers = [n for n in CHECKPOINTS if n <= cases[0]["num_trials"]]
    lines = [f"| sampler | {' | '.join(f'{n} trials' for n in numbers)} |", f"|---|{'---|' * len(numbers)}"]
    for name in [name for name, is_projected in runs if not is_projected]:
        pairs = list(zip(runs[name, True], runs[name, False], strict=True))
        apart = [[on[i]["named"] - off[i]["named"] for on, off in pairs] for i in range(len(numbers))]
        lines.append(f"| {name} | {' | '.join(verdict(interval(values), better='smaller') for values in apart)} |")
    return lines


def _in_percent(case):
    return {**case, "runs": [[{**at, "hypervolume": 100 * at["hypervolume"]} for at in run] for run in case["runs"]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cases = run(options.repetitions, options.trials)
    about = {name: version(name) for name in ("optuna", "numpy", "torch")} | {"python": platform.python_version()}
    about |= {"date": dt.datetime.now(dt.UTC).date().isoformat(), "cpu_seconds": round(time.process_time())}
    found = {"about": about, "num_repetitions": options.repetitions, "num_trials": options.trials, "cases": cases}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "synthetic.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    (options.out / "synthetic.md").write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
