"""Whether what runs for long grows: thousands of trials on two Ray workers, some of which kill -9 themselves in the middle of a trial.

    python benchmarks/soak.py --trials 2000 --killed 0.02

The evaluator answers at once, so that all of the time is the driver's, Ray's and the database's (SQLite). Memory (resident, after a
collection), open files and threads are the driver's. Medians over the quarters of the run are printed, and the slope of a straight line
through the last three quarters, with a 95 % interval from the residuals. (Samples that follow each other are alike, so the interval is
narrower than it should be.) Afterwards every trial must have ended exactly once, none of them by failing.
"""

import argparse
import gc
import math
import os
import platform
import random
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from allocsearch import spec as specs
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.ray_executor import RayExecutor
from allocsearch.backends.ray_resources import Resources
from allocsearch.core.ports import Report
from allocsearch.core.trial import Assignment, Measured, SeedScore
from allocsearch.planning import plan
from allocsearch.workplace import versions

_ROWS = 16
_EVERY = 20
_MEASURES = ("MiB", "open files", "threads")

Sample = tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Deadly:
    """Scores an allocation by its digest, or dies instead: each attempt draws anew."""

    killed: float

    def __call__(self, assignment: Assignment, report: Report) -> Measured:  # noqa: ARG002 - the port's signature
        """At once."""
        if random.SystemRandom().random() < self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        value = int(assignment.allocation.digest, 16) / 16**16
        return Measured((SeedScore(0, (value > 0.5,) * _ROWS, (value,) * _ROWS),), 0.0, str(os.getpid()))


def run(url: str, *, trials: int, killed: float) -> Iterator[Sample]:
    """What the driver holds, each time that so many trials have ended."""
    limits = {"max_attempts": 10}
    spec = specs.load("quickstart", {"trials": trials, "name": "soak", "sampler": "random", "warm_starts": [], "limits": limits})
    catalog, planned = Catalog(url), plan(spec)
    catalog.create("soak", spec, {"versions": versions()})
    study = catalog.open("soak", spec, planned.proposals)
    ended = 0
    for trial in RayExecutor(Resources(num_workers=2)).run(study, Deadly(killed)):
        ended += trial.outcome is not None
        if trial.outcome is not None and ended % _EVERY == 0:
            yield ended, held(psutil.Process())
    found = catalog.record("soak").trials
    states = Counter(type(found_trial.outcome).__name__ for found_trial in found)
    print(f"ended: {dict(states)}; attempts: {dict(Counter(found_trial.attempt for found_trial in found))}")
    assert states == {"Measured": trials}, "every trial must end exactly once"


def held(process: psutil.Process) -> tuple[float, ...]:
    """See `_MEASURES`."""
    gc.collect()
    return process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()


def slope(samples: list[Sample], what: int) -> tuple[float, float]:
    """Per 1,000 trials, and half its 95 % interval."""
    late = samples[len(samples) // 4 :]
    x, y = [number / 1000 for number, _ in late], [found[what] for _, found in late]
    line = statistics.linear_regression(x, y)
    residual = sum((b - line.intercept - line.slope * a) ** 2 for a, b in zip(x, y, strict=True)) / (len(x) - 2)
    return line.slope, 1.96 * math.sqrt(residual / (statistics.variance(x) * (len(x) - 1)))


def row(samples: list[Sample], what: int) -> str:
    """One line of the table."""
    quarters = [samples[len(samples) * i // 4 : len(samples) * (i + 1) // 4] for i in range(4)]
    medians = " | ".join(f"{statistics.median(found[what] for _, found in quarter):.0f}" for quarter in quarters)
    found, half = slope(samples, what)
    return f"| {_MEASURES[what]} | {medians} | {found:+.2f} ± {half:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--killed", type=float, default=0.02, help="share of attempts whose worker dies")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {versions()}")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        samples = list(run(f"sqlite:///{folder}/studies.db", trials=options.trials, killed=options.killed))
    print(f"{options.trials} trials in {time.perf_counter() - began:.0f} s")
    print("| of the driver | 1st quarter | 2nd | 3rd | 4th | slope per 1,000 trials |\n|---|---:|---:|---:|---:|---:|")
    for what in range(len(_MEASURES)):
        print(row(samples, what))


if __name__ == "__main__":
    main()
