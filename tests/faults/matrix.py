"""Which faults there are."""

from dataclasses import dataclass

MOMENTS = ("asking", "training", "rung", "telling", "confirming")
KINDS = ("kill", "stop", "restart")


@dataclass(frozen=True)
class Fault:
    """`how` happens to `whom` while `when` is under way, with trials trained `where`.

    Attributes:
        whom: "driver", "database" (PostgreSQL), "worker" (the process that trains a trial), "raylet" (of the node that trains it).
        how: "kill": SIGKILL. "stop": SIGSTOP, later SIGCONT. "restart": an orderly end, and the same again.
        when: see `MOMENTS`.
        where: "inline": by the driver, which is quick. "cluster": on two nodes of a Ray cluster. "local": in the driver's own session
            of one node, whose only raylet is struck.
    """

    whom: str
    how: str
    when: str
    where: str

    def __str__(self):
        return f"{self.whom}, {self.how}, {self.when}, {self.where}"


def faults():
    """All that make sense, the quick ones first. A session of its own ends with its only raylet: that one can't be restarted."""
    inline = [(whom, KINDS, "inline") for whom in ("driver", "database")]
    cluster = [(whom, KINDS, "cluster") for whom in ("worker", "raylet")]
    alone = [("raylet", ("kill", "stop"), "local")]
    return [Fault(whom, how, when, where) for whom, kinds, where in inline + cluster + alone for how in kinds for when in MOMENTS]
