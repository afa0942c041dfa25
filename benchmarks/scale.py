"""What a study costs its driver as it grows: trials of a trivial evaluator, many of them running at once, told in a random order.

    nice -n 10 python benchmarks/scale.py --trials 10000 --workers 256 --sampler random evolution tpe [--storage URL]

One process asks and tells; its workers are a list of assignments. A row covers 250 trials that ended one after the other around the
number that it names (a sampler's window moves on once in 250). Milliseconds are means of this process's CPU time per trial, asked for
and told; on a server's own time see `count`. Of them, `storage` is what Optuna's storage takes, database included, and the rest is
everything else: proposing, projecting, counting. `count` is wall time of the one statement that counts the study's earlier trials, which
Optuna sends with each new trial to number it. `status` is the wall time of reading the study's standing, through another connection.
`fixed` is the CPU time of one and the same piece of Python, run after each tenth trial: where it grows, the machine was slower.
"""

import argparse
import gc
import os
import platform
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import sqlalchemy as sa

from allocsearch import spec as specs
from allocsearch.backends.catalog import Catalog
from allocsearch.core.trial import Assignment, Measured, SeedScore
from allocsearch.planning import plan
from allocsearch.views import status_json
from allocsearch.workplace import versions

_ROWS = 256
_SPAN = 250


def scored(assignment: Assignment) -> Measured:
    """A score by the allocation's digest, at once."""
    value = int(assignment.allocation.digest, 16) / 16**16
    right = tuple(i / _ROWS < value for i in range(_ROWS))
    return Measured((SeedScore(0, right, tuple(value + i / 1000 for i in range(_ROWS))),), 0.1, "here")


@dataclass
class Clock:
    """Adds up seconds by what they were spent on."""

    spent: Counter[str] = field(default_factory=Counter)

    def watch_storage(self, storage: object) -> None:
        """Every call of the study's storage."""
        inner = storage._call  # noqa: SLF001 - nothing public lets one in

        def timed(*arguments):
            started = time.process_time()
            try:
                return inner(*arguments)
            finally:
                self.spent["storage"] += time.process_time() - started

        storage._call = timed  # noqa: SLF001 - as above

    def watch_counting(self, engine: sa.Engine) -> None:
        """The statement that counts trials."""
        starts: list[float] = []
        sa.event.listen(engine, "before_cursor_execute", lambda *_: starts.append(time.perf_counter()))

        def ended(_connection, _cursor, statement, *_):
            seconds = time.perf_counter() - starts.pop()
            if statement.startswith("SELECT count("):
                self.spent["count"] += seconds

        sa.event.listen(engine, "after_cursor_execute", ended)


def fixed_work() -> int:
    """The same at every call, about two milliseconds of it."""
    drawn = random.Random(0)
    return len({str(drawn.random()) for _ in range(3000)})


def row(sampler: str, ended: int, spent: Counter[str], url: str, name: str) -> str:
    """One line of the table."""
    reader = Catalog(url)
    started = time.perf_counter()
    status_json(reader.glance(name))
    status = time.perf_counter() - started
    del reader
    gc.collect()
    ms = {what: 1000 * seconds / _SPAN for what, seconds in spent.items()}
    memory = psutil.Process().memory_info().rss / 2**20
    parts = [sampler, f"{ended:,}", f"{ms['all']:.1f}", f"{ms['storage']:.1f}", f"{ms['all'] - ms['storage']:.1f}", f"{ms['count']:.2f}"]
    return "| " + " | ".join([*parts, f"{memory:.0f}", f"{status:.2f}", f"{10 * ms['fixed']:.1f}"]) + " |"


def searched(sampler: str, url: str, *, trials: int, workers: int, marks: list[int]) -> None:
    """A whole search; prints its rows."""
    name = f"scale-{sampler}-{time.time_ns()}"
    spec = specs.load("quickstart", {"trials": trials, "sampler": sampler, "name": name})
    catalog = Catalog(url)
    catalog.create(name, spec, {"versions": versions()})
    study, clock, shuffled = catalog.open(name, spec, plan(spec).proposals), Clock(), random.Random(0)
    clock.watch_storage(study._storage)  # noqa: SLF001 - as above
    clock.watch_counting(catalog._storage.engine)  # noqa: SLF001 - as above
    running: list[Assignment] = []
    began = time.perf_counter()
    while True:
        started = time.process_time()
        while len(running) < workers and (assignment := study.ask()) is not None:
            running.append(assignment)
        if not running:
            break
        place = shuffled.randrange(len(running))
        running[place], running[-1] = running[-1], running[place]
        assignment = running.pop()
        outcome = scored(assignment)
        study.tell(assignment.number, outcome)
        clock.spent["all"] += time.process_time() - started
        if study.num_finished % 10 == 0:
            clock.spent["fixed"] -= time.process_time()
            fixed_work()
            clock.spent["fixed"] += time.process_time()
        if study.num_finished + _SPAN in marks:
            clock.spent.clear()
        if study.num_finished in marks:
            print(row(sampler, study.num_finished, clock.spent, url, name), flush=True)
    print(f"<!-- {sampler}: {study.num_finished:,} trials in {time.perf_counter() - began:.0f} s of wall time -->", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--sampler", nargs="+", default=["random", "evolution", "tpe"])
    parser.add_argument("--marks", type=int, nargs="+", help="Numbers of ended trials at which a row is printed.")
    parser.add_argument("--storage", help="A database's URL; without one, a SQLite file for each sampler.")
    options = parser.parse_args()
    last = options.trials - options.workers  # the rest is told without anything being asked for
    marks = sorted({min(n, last) for n in options.marks or (1000, 2500, 5000, last)})
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {versions()}")
    print("| sampler | trials ended | ms a trial | of it storage | all else | count | MiB | s for status | ms fixed |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for sampler in options.sampler:
        with tempfile.TemporaryDirectory() as folder:
            url = options.storage or f"sqlite:///{Path(folder) / 'studies.db'}"
            searched(sampler, url, trials=options.trials, workers=options.workers, marks=marks)


if __name__ == "__main__":
    main()
