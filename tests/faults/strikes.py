"""How each party is struck. A strike signals on entry, and on exit undoes what it did: the fault lasts as long as its `with` block."""

import random
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from tests.faults.driver import BATCH, LEASE_SECONDS, TRIALS

_AWAY_SECONDS = (0.3, 3.0)  # shorter and longer than what it takes a cluster to give a node up
_SECONDS = {"asking": 0.02, "telling": 0.02, "training": 0.05, "confirming": 0.05, "rung": 0.0125}
_RAY_SECONDS = {**_SECONDS, "training": 0.4, "confirming": 0.4, "rung": 0.1}


@dataclass(frozen=True)
class Aim:
    """At which trial, how far into the moment, and for how long; all from the fault's index."""

    number: int
    delay: float
    away: float

    @classmethod
    def of(cls, fault, index):
        rng = random.Random(f"{index}/{fault}")
        number = rng.randrange(3) if fault.when == "confirming" else rng.randrange(BATCH, TRIALS - 1)  # a worker has trained by then
        seconds = (_SECONDS if fault.where == "inline" else _RAY_SECONDS)[fault.when]
        return cls(number, rng.uniform(0, 0.9 * seconds), rng.uniform(*_AWAY_SECONDS))


@contextmanager
def driver(bench, how, aim):
    """It is stopped for longer than its lease lasts: another takes over, and then it wakes up."""
    process = psutil.Process(bench.drivers[0].pid)
    _send(process, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "restart": signal.SIGINT}[how])
    yield process.pid
    if how == "stop":
        bench.start_driver()
        time.sleep(LEASE_SECONDS + aim.away)
        _send(process, signal.SIGCONT)


@contextmanager
def worker(bench, how, aim):
    """The one that trains, or has trained last."""
    pid = bench.training_pid()
    with _signalled([psutil.Process(pid)], how, aim):
        yield pid


@contextmanager
def raylet(bench, how, aim):
    """Of the node on which that worker is; one that has ended for good is replaced by another node, at once where it is a restart."""
    found = next(parent for parent in psutil.Process(bench.training_pid()).parents() if parent.name() == "raylet")
    with _signalled([found], how, aim):
        yield found.pid
    if how == "restart" and bench.cluster is not None:
        found.wait(30)
        bench.cluster.mend()


@contextmanager
def database(bench, how, aim):
    """All its processes."""
    server = bench.postgres
    root = psutil.Process(server.process.pid)
    if how == "stop":
        with _signalled([root, *root.children(recursive=True)], how, aim):
            yield root.pid
        return
    if how == "restart":
        server.process.send_signal(signal.SIGINT)  # a fast shutdown, which does not wait for clients
    else:
        everything = [root, *root.children(recursive=True)]
        for process in everything:
            _send(process, signal.SIGKILL)
    yield root.pid
    if how == "kill":
        psutil.wait_procs(everything, timeout=10)
    server.process.wait(30)
    (server.data / "postmaster.pid").unlink(missing_ok=True)
    time.sleep(aim.away)
    server.start()


@contextmanager
def _signalled(processes, how, aim):
    for process in processes:
        _send(process, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "restart": signal.SIGTERM}[how])
    yield
    if how == "stop":
        time.sleep(aim.away)
        for process in processes:
            _send(process, signal.SIGCONT)


def _send(process, what):
    try:
        process.send_signal(what)
    except psutil.NoSuchProcess:
        return  # it had ended by itself
