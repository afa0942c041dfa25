"""A driver to be struck: a toy search in fixed batches, then its best two again with other seeds, on one study in PostgreSQL.

It writes a file when it comes to a moment at which it may be struck, with its process in it, and another when the moment is over. A
worker's moments are the worker's.
"""

import os
import signal
import sys
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.cli.interrupts import in_two_steps
from allocsearch.core.errors import InputError, LostLeaseError, interrupted
from allocsearch.core.trial import RungScore
from allocsearch.search.schedule import Halving
from tests.conformance.toy import measured, proposals_of, spec_of

TRIALS, BATCH = 9, 3
INTERRUPTED, FENCED, REFUSED = 130, 5, 2
LEASE_SECONDS = 2.0
SAMPLERS = ("evolution", "random", "nsga2", "tpe", "quasi-random")
CONFIRMING_SEEDS = (101, 102)
_PATIENCE_SECONDS = 90


def spec(seed):
    """The study's: its sampler goes with its seed."""
    limits = {"max_attempts": 5, "max_failed_share": 1.0}
    sampler = SAMPLERS[seed % len(SAMPLERS)]
    return spec_of(trials=TRIALS, seed=seed, sampler=sampler, proposal_batch=BATCH, limits=limits, proxy={"rungs": [5, 10]})


@dataclass(frozen=True)
class Moments:
    """Where a process says how far it is."""

    folder: Path

    @contextmanager
    def during(self, moment, number):
        mark, draft = self.mark(moment, number), self.folder / f".{moment}-{number}-{os.getpid()}"
        self.over(moment, number).unlink(missing_ok=True)
        draft.write_text(str(os.getpid()))
        draft.replace(mark)
        yield
        self.over(moment, number).touch()  # not where the moment was broken off

    def mark(self, moment, number):
        return self.folder / f"{moment}-{number}"

    def over(self, moment, number):
        return self.folder / f"{moment}-{number}.over"


@dataclass(frozen=True)
class Evaluator:
    """Takes long enough to be struck; its scores depend on the allocation and the seed alone."""

    moments: Moments
    seconds: float
    name: str = "training"

    def __call__(self, assignment, report):
        with self.moments.during(self.name, assignment.number):
            time.sleep(self.seconds)
        rungs = []
        for step in assignment.rungs:
            rungs.append(RungScore(assignment.seeds[0], step, 0.5, 1.0))
            with self.moments.during("rung", assignment.number):
                time.sleep(self.seconds / 8)
                assert report(rungs[-1]), "this scheduler stops nothing"
                time.sleep(self.seconds / 8)
        return measured(assignment, rungs=tuple(rungs), worker=str(os.getpid()))


@dataclass
class Watched:
    """A Study that says when it asks and tells."""

    study: object
    moments: Moments

    def ask(self):
        with self.moments.during("asking", len(self.study.register)):
            return self.study.ask()

    def tell(self, number, outcome):
        with self.moments.during("telling", number):
            return self.study.tell(number, outcome)

    def trials(self):
        return self.study.trials()


def confirm(study, beside, run):
    """What the best two find with other seeds, in the companion `beside`."""
    for trial in study.register.front[-2:]:
        for seed in CONFIRMING_SEEDS:
            beside.enqueue_assignment(replace(trial.assignment, seeds=(seed,), rungs=(), split="test"), trial.origin)
    run(beside)


def begin(url, name, seed, folder, ray_address):
    """As a process of its own, whose exit code says how it ended."""
    os.setsid()  # else it would wake from SIGSTOP where the shell that began all this ends
    os.environ["ALLOCSEARCH_LEASE_SECONDS"] = str(LEASE_SECONDS)
    log = os.open(Path(folder) / "log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs begin with it ignored
    try:
        with in_two_steps():
            code = drive(url, name, seed, folder, ray_address)
    except BaseException as error:
        if not interrupted(error):  # as the command line looks at it
            raise
        code = INTERRUPTED
    sys.exit(code)


def drive(url, name, seed, folder, ray_address):
    """Until all is done; returns the process's exit code. No `ray_address`: trains by itself; "local": in a Ray session of its own."""
    catalog, moments, own = Catalog(url), Moments(Path(folder)), spec(seed)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with catalog.driving(name), _session(ray_address):
                _search(catalog, name, own, moments, ray_address)
                return 0
        except LostLeaseError:
            return FENCED
        except InputError as error:
            if "must have one driver" not in str(error) or time.monotonic() > deadline:
                sys.stderr.write(f"{error}\n")
                return REFUSED
            time.sleep(0.2)  # a dead driver's lease has not expired yet, or another drives


def _search(catalog, name, own, moments, ray_address):
    evaluator = Evaluator(moments, 0.4 if ray_address else 0.05)
    proposals = proposals_of(own)
    study = catalog.open(name, own, proposals)
    never = Halving(seed=own.proxy.seeds[0], first_rung=5, eta=1000)  # hears of each rung
    for _ in _executor(ray_address).run(Watched(study, moments), evaluator, scheduler=never):
        pass
    beside = catalog.open_companion(name, "confirmation", own, proposals, {"versions": {}})
    others = Moments(moments.folder / "beside")

    def run(companion):
        for _ in _executor(ray_address).run(Watched(companion, others), replace(evaluator, name="confirming")):
            pass

    confirm(study, beside, run)


def _session(ray_address):
    """One for the search and the confirmation."""
    if ray_address is None:
        return nullcontext()
    from allocsearch.backends.ray_session import session

    return session(num_cpus=2, address=None if ray_address == "local" else ray_address)


def _executor(ray_address):
    if ray_address is None:
        return InlineExecutor()
    from allocsearch.backends.ray_executor import RayExecutor, Resources

    return RayExecutor(Resources(2), address=None if ray_address == "local" else ray_address)
