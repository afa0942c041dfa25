"""One study that is struck once, and then brought to its end."""

import multiprocessing
import time
from dataclasses import dataclass, field
from pathlib import Path

from allocsearch.backends.catalog import Catalog
from tests.faults import findings, strikes
from tests.faults.driver import Moments, begin, spec

NUM_SEEDS = 10
_PATIENCE_SECONDS = 240
_RESTARTS = 4
# Drivers are forked from a process that has no threads and has imported what takes seconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["torch", "tests.faults.driver"])


@dataclass
class Bench:
    """Where a fault is tried.

    Attributes:
        postgres: the server that holds the study.
        folder: for marks and logs; made here.
        name: the study's.
        index: of the fault among all that are tried; the study's seed and the aim follow from it.
        cluster: a `RayCluster`, for faults on one.
    """

    postgres: object
    folder: Path
    name: str
    index: int
    cluster: object = None
    drivers: list = field(default_factory=list)

    def run(self, fault):
        """What was found: whom it struck, whether at its moment, how the drivers ended, and what is wrong."""
        (self.folder / "beside").mkdir(parents=True)
        Catalog(self.postgres.url).create(self.name, spec(self.seed), {"versions": {}})
        self._address = {"inline": None, "local": "local", "cluster": self.cluster and self.cluster.address}[fault.where]
        self.start_driver()
        struck, hit = self._strike(fault)
        before = findings.ended(self.postgres.url, self.name)
        codes = self._codes()
        while 0 not in codes and None not in codes and len(codes) <= _RESTARTS:
            self.start_driver()
            codes = self._codes()
        wrong = findings.wrong_end(fault, hit, codes, (self.folder / "log").read_text())
        wrong += findings.wrong(self.postgres.url, self.name, self.seed, before=before)
        return {"struck": struck, "hit": hit, "codes": codes, "wrong": wrong}

    @property
    def seed(self):
        """Few, so that what an undisturbed study finds need not be found anew each time."""
        return self.index % NUM_SEEDS

    def start_driver(self):
        """Another; its log is appended to the same file."""
        arguments = (self.postgres.url, self.name, self.seed, str(self.folder), self._address)
        process = _processes.Process(target=begin, args=arguments)
        process.start()
        self.drivers.append(process)

    def training_pid(self):
        """The process that said last that it trains."""
        marks = [mark for name in ("training", "confirming") for mark in self.folder.glob(f"{name}-?")]
        return int(max(marks, key=lambda mark: mark.stat().st_mtime_ns).read_text())

    def _strike(self, fault):
        """Waits for the moment, and then for as long as the seed says."""
        aim, moments = strikes.Aim.of(fault, self.index), Moments(self.folder)
        mark, over = moments.mark(fault.when, aim.number), moments.over(fault.when, aim.number)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not mark.exists():
            if self.drivers[0].exitcode is not None or time.monotonic() > deadline:
                return None, False
            time.sleep(0.001)
        time.sleep(aim.delay)
        with getattr(strikes, fault.whom)(self, fault.how, aim) as pid:
            hit = not over.exists()
        return pid, hit

    def _codes(self):
        """Of all drivers, waited for; None for one that neither works nor ends, which is ended here."""
        codes = []
        for driver in self.drivers:
            driver.join(_PATIENCE_SECONDS)
            codes.append(driver.exitcode)
            if driver.exitcode is None:
                driver.kill()
        return codes
