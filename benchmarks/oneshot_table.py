"""Whether one-shot scores rank allocations as their own trainings do, on a table of trained allocations.

    python benchmarks/oneshot_table.py results/tabular_smollm2.parquet

A super-adapter is trained with the table's first seed, and its scores of the allocations inside the table's budget are correlated with what
these reached with the other seeds. Beside it: the parameter count, and the first seed's own trainings, which no score of one seed can be
expected to beat. Prints a table; intervals are 95 % bootstrap percentiles over allocations.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from replay_table import load

from allocsearch.models import model_shape, resolve
from allocsearch.scores.starts import one_shot_scores
from allocsearch.search.rank_correlation import spearman
from allocsearch.spec import StudySpec

NUM_RESAMPLES = 4000


def correlation(one, other, *, seed=0):
    """Spearman's ρ with its interval."""
    rng = np.random.default_rng(seed)
    size = len(one)
    weights = np.stack([np.ones(size), *(np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(NUM_RESAMPLES))])
    found = spearman(np.asarray(one), np.asarray(other), weights)
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return f"{found[0]:+.2f} [{low:+.2f}, {high:+.2f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    options = parser.parse_args()
    table = load(options.table)
    spec = StudySpec.from_json(table.about["spec"], where=str(options.table))
    started = time.process_time()
    scores = one_shot_scores(
        [table.space.decode(row.point) for row in table.inside], spec, model=str(resolve(spec.model, print)), shape=model_shape(spec.model)
    )
    print(f"{table.name}: {len(scores)} allocations inside the budget, one-shot in {time.process_time() - started:.0f} CPU seconds\n")
    first, *others = table.seeds
    print(f"| against seed {', '.join(map(str, others))} | NLL | accuracy |\n|---|---:|---:|")
    ends = {seed: [(-row.reports[seed][-1].nll, row.reports[seed][-1].accuracy) for row in table.inside] for seed in table.seeds}
    truth = np.mean([ends[seed] for seed in others], axis=0)
    sources = {"one-shot": scores, "parameters": [row.trainable for row in table.inside], f"seed {first}": ends[first]}
    for name, values in sources.items():
        columns = np.asarray(values, dtype=float)
        columns = columns if columns.ndim == 2 else np.stack([columns, columns], axis=1)
        print(f"| {name} | {' | '.join(correlation(columns[:, i], truth[:, i]) for i in (0, 1))} |")


if __name__ == "__main__":
    main()
