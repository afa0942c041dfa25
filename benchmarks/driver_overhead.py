"""What a trial costs besides its training: a trivial evaluator through each executor, on a real study in SQLite.

    python benchmarks/driver_overhead.py --trials 60 --workers 2

Prints one row per executor: the median and the 90th percentile of the seconds between the ends of consecutive trials, after the
first ones (which wait for Ray to start), and how long the start took. Runs alternate, so that a busy machine slows both alike.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from allocsearch import spec as specs
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.backends.ray_executor import RayExecutor
from allocsearch.backends.ray_resources import Resources
from allocsearch.core.trial import Assignment, Measured, SeedScore
from allocsearch.planning import plan
from allocsearch.workplace import versions


class Trivial:
    """Scores an allocation by its digest, at once."""

    def __call__(self, assignment: Assignment, _report: object) -> Measured:
        value = int(assignment.allocation.digest, 16) / 16**16
        return Measured((SeedScore(0, (value > 0.5,) * 16, (value,) * 16),), 0.0, str(os.getpid()))


def seconds_between(executor: object, url: str, name: str, *, trials: int) -> tuple[list[float], float]:
    spec = specs.load("quickstart", {"trials": trials, "name": name})
    planned = plan(spec)
    catalog = Catalog(url)
    catalog.create(name, spec, {"versions": versions()})
    study = catalog.open(name, spec, planned.proposals)
    started = time.perf_counter()
    ends = [time.perf_counter() for _ in executor.run(study, Trivial())]
    steady = ends[4:]  # the first workers have only just come up
    return [later - earlier for earlier, later in pairwise(steady)], ends[0] - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    executors = {"in this process": InlineExecutor, f"Ray Tune, {options.workers} workers": lambda: RayExecutor(Resources(options.workers))}
    gaps: dict[str, list[float]] = {name: [] for name in executors}
    starts: dict[str, list[float]] = {name: [] for name in executors}
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'studies.db'}"
        for round_ in range(options.rounds):
            for i, (name, make) in enumerate(executors.items()):
                found, start = seconds_between(make(), url, f"bench-{round_}-{i}", trials=options.trials)
                gaps[name] += found
                starts[name].append(start)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {versions()}")
    print("| executor | trials | median s a trial | p90 s a trial | s to the first trial |")
    print("|---|---|---|---|---|")
    for name, found in gaps.items():
        p90 = statistics.quantiles(found, n=10)[-1]
        print(f"| {name} | {len(found)} | {statistics.median(found):.3f} | {p90:.3f} | {statistics.median(starts[name]):.1f} |")


if __name__ == "__main__":
    main()
