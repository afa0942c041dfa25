"""What a study costs its driver as it grows: a trivial evaluator, 256 trials running at once, told in a random order.

    nice -n 10 python benchmarks/scale.py --sampler random evolution tpe [--storage URL]
    nice -n 10 python benchmarks/scale.py --sampler random --whole 10000 --space free

One process asks and tells; its workers are a list of assignments. Without `--whole`, a study's first twenty trials are doubled in the
database until there are 160, 1,280 and 10,240 of them, and then 250 trials are asked for and told on each of these studies in turn, so
that other work on the machine slows all of them alike. With it, a study is run from its first trial to its last.

Milliseconds are means per trial of this process's CPU time; a server's own is not in them. Of them, `storage` is what Optuna's storage
takes, database included, and the rest is everything else: proposing, projecting, counting. `count` is wall time of the one statement
that counts the study's earlier trials, which Optuna sends to number each new one. `status` is the CPU time of reading the study's
standing through another connection. `fixed` is CPU time of one and the same piece of Python: where it grows, the machine was slower.
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
from typing import Any

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
_SEEDLINGS = 20
_COPIED = {
    "trial_user_attributes": "key, value_json",
    "trial_params": "param_name, param_value, distribution_json",
    "trial_values": "objective, value, value_type",
}


def scored(assignment: Assignment) -> Measured:
    """A score by the allocation's digest, at once."""
    value = int(assignment.allocation.digest, 16) / 16**16
    right = tuple(i / _ROWS < value for i in range(_ROWS))
    return Measured((SeedScore(0, right, tuple(value + i / 1000 for i in range(_ROWS))),), 0.1, "here")


def double(engine: sa.Engine, study: str) -> None:
    """Append a copy of all the study's trials to them."""
    ours = "study_id = (SELECT study_id FROM studies WHERE study_name = :study)"
    with engine.begin() as connection:
        num = connection.execute(sa.text(f"SELECT count(*) FROM trials WHERE {ours}"), {"study": study}).scalar()
        given = {"study": study, "num": num}
        columns = "state, datetime_start, datetime_complete"
        copy = f"SELECT study_id, number + :num, {columns} FROM trials WHERE {ours} ORDER BY number"
        connection.execute(sa.text(f"INSERT INTO trials (study_id, number, {columns}) {copy}"), given)
        for table, names in _COPIED.items():
            both = "JOIN trials one USING (trial_id) JOIN trials two ON two.study_id = one.study_id AND two.number = one.number + :num"
            copy = f"SELECT two.trial_id, {names} FROM {table} {both} WHERE one.{ours}"
            connection.execute(sa.text(f"INSERT INTO {table} (trial_id, {names}) {copy}"), given)


def fixed_work() -> int:
    """The same at every call, about two milliseconds of it."""
    drawn = random.Random(0)
    return len({str(drawn.random()) for _ in range(3000)})


@dataclass
class Clock:
    """Adds up seconds by what they were spent on."""

    spent: Counter[str] = field(default_factory=Counter)

    def watch_storage(self, storage: Any) -> None:
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

    def watch_fixed_work(self) -> None:
        """Do it once."""
        started = time.process_time()
        fixed_work()
        self.spent["fixed"] += time.process_time() - started


class Search:
    """A study with its workers."""

    def __init__(self, sampler: str, url: str, *, trials: int, workers: int, space: str | None) -> None:
        self.sampler, self.url, self.name = sampler, url, f"scale-{sampler}-{trials}-{time.time_ns()}"
        self.spec = specs.load("quickstart", {"trials": trials, "sampler": sampler, "space": space, "name": self.name})
        self.proposals, self.workers = plan(self.spec).proposals, workers
        Catalog(url).create(self.name, self.spec, {"versions": versions()})
        self.running: list[Assignment] = []
        self.drawn = random.Random(0)
        self.open()

    def open(self) -> None:
        """As a resume does."""
        self.catalog, self.clock = Catalog(self.url), Clock()
        self.study = self.catalog.open(self.name, self.spec, self.proposals)
        self.clock.watch_storage(self.study._storage)  # noqa: SLF001 - nothing public gives it
        self.clock.watch_counting(self.catalog._storage.engine)  # noqa: SLF001 - as above

    def ask(self) -> None:
        """Give every worker something to do."""
        while len(self.running) < self.workers and (assignment := self.study.ask()) is not None:
            self.running.append(assignment)

    def step(self) -> None:
        """One worker ends, and is given another trial."""
        started = time.process_time()
        place = self.drawn.randrange(len(self.running))
        self.running[place], self.running[-1] = self.running[-1], self.running[place]
        assignment = self.running.pop()
        self.study.tell(assignment.number, scored(assignment))
        self.ask()
        self.clock.spent["all"] += time.process_time() - started

    def grow(self, trials: int) -> None:
        """Multiply what there is until there are so many trials, and open the study anew."""
        for _ in range(_SEEDLINGS):
            assignment = self.study.ask()
            assert assignment is not None
            self.study.tell(assignment.number, scored(assignment))
        for _ in range((trials // _SEEDLINGS).bit_length() - 1):
            double(self.catalog._storage.engine, self.name)  # noqa: SLF001 - as above
        self.open()

    def row(self, steps: int) -> str:
        """One line of the table."""
        reader = Catalog(self.url)
        started = time.process_time()
        found = status_json(reader.glance(self.name))
        status = time.process_time() - started
        del reader
        gc.collect()
        spent = {what: 1000 * self.clock.spent[what] / steps for what in ("all", "storage", "count", "fixed")}
        parts = [self.sampler, f"{found['counts']['finished']:,}", f"{spent['all']:.1f}", f"{spent['storage']:.1f}"]
        parts += [f"{spent['all'] - spent['storage']:.1f}", f"{spent['count']:.2f}", f"{status:.2f}", f"{spent['fixed']:.1f}"]
        return "| " + " | ".join([*parts, f"{psutil.Process().memory_info().rss / 2**20:.0f}"]) + " |"


def side_by_side(sampler: str, url: str, *, sizes: list[int], workers: int, space: str | None) -> None:
    """Studies of several sizes, in turn."""
    searches = [Search(sampler, url, trials=2 * size + _SPAN + workers, workers=workers, space=space) for size in sizes]
    for search, size in zip(searches, sizes, strict=True):
        search.grow(size)
        search.ask()
        search.clock.spent.clear()
    for _ in range(_SPAN):
        for search in searches:
            search.step()
            search.clock.watch_fixed_work()
    for search in searches:
        print(search.row(_SPAN), flush=True)


def whole(sampler: str, url: str, *, trials: int, workers: int, space: str | None) -> None:
    """A search from its first trial to its last, with a row now and then."""
    search, began, steps = Search(sampler, url, trials=trials, workers=workers, space=space), time.perf_counter(), 0
    search.ask()
    search.clock.spent.clear()
    while search.running:
        search.step()
        search.clock.watch_fixed_work()
        steps += 1
        if search.study.num_finished % max(_SPAN, trials // 10) == 0:
            print(search.row(steps), flush=True)
            search.clock.spent.clear()
            steps = 0
    print(f"{search.study.num_finished:,} trials in {time.perf_counter() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sampler", nargs="+", default=["random", "evolution", "tpe"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 1280, 10_240], help="20 times a power of two each")
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--whole", type=int, metavar="TRIALS", help="run a search of so many trials instead")
    parser.add_argument("--space", help="another search space than the quickstart's; one that many trials do not exhaust, such as free")
    parser.add_argument("--storage", help="a database's URL; without one, a SQLite file for each sampler")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {versions()}")
    print("| sampler | trials ended | ms a trial | of it storage | all else | count | s for status | fixed | MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for sampler in options.sampler:
        with tempfile.TemporaryDirectory() as folder:
            url = options.storage or f"sqlite:///{Path(folder) / 'studies.db'}"
            if options.whole:
                whole(sampler, url, trials=options.whole, workers=options.workers, space=options.space)
            else:
                side_by_side(sampler, url, sizes=options.sizes, workers=options.workers, space=options.space)


if __name__ == "__main__":
    main()
