"""A model of four layers, a space over it, and an evaluator that only does arithmetic: a study in milliseconds."""

from dataclasses import dataclass, field, replace

import optuna

from allocsearch.backends.catalog import Catalog
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget, cost
from allocsearch.core.geometry import ModelShape, Routing, Site
from allocsearch.core.trial import Measured, RungScore, SeedScore, Stopped
from allocsearch.search.proposals import Proposals
from allocsearch.spec import StudySpec

SHAPE = ModelShape(
    "toy", ((Site("q", "attn", 16, 16), Site("up", "ffn", 16, 32)),) * 4, hidden_size=16, num_heads=2, num_parameters=100_000
)  # fmt: skip
ROUTING = Routing()
WIDE = {"experts": {"choices": [0, 1, 2, 3, 4], "share": {"groups": 2}}, "rank": {"choices": [1, 2, 3, 4, 6, 8], "share": {"groups": 2}}}
NARROW = {"rank": {"choices": [1, 2, 3]}}
"""Three allocations in all."""
ROWS = 8


def spec_of(**changes):
    """A toy study's spec; keywords replace top-level keys, and `part` the space."""
    part = changes.pop("part", WIDE)
    space = {"schema": "allocsearch/space/v1", "name": "toy", "parts": {"all": part}}
    document = {
        "schema": "allocsearch/study/v1", "name": "toy", "model": "toy", "task": "sentence-polarity", "space": space,
        "budget": "8K-params", "trials": 8, "sampler": "random", "seed": 3, "warm_starts": [], "confirmation": {"candidates": 0},
    }  # fmt: skip
    return StudySpec.from_json({**document, **changes}, where="the test")


def proposals_of(spec):
    space = spec.space.template().bind(SHAPE, spec.routing.routing())
    return Proposals(space, Budget.parse(spec.budget), spec.ladder if spec.objective == "pareto" else (1.0,), spec.seed)


def score_of(allocation, seed=0):
    """Larger allocations answer more rows; the bottom layers' count for more."""
    total = cost(allocation, SHAPE, ROUTING).trainable
    right = min(ROWS, 2 + total // 1500 + len(allocation.layers[0].sizes("q")) % 2)
    return SeedScore(seed, (True,) * right + (False,) * (ROWS - right), tuple(1.0 - 0.1 * i + 1 / (1 + total) for i in range(ROWS)))


BASE = SeedScore(0, (True,) * 2 + (False,) * (ROWS - 2), (1.5,) * ROWS)


def measured(assignment, **changes):
    """How the toy model always ends."""
    scores = tuple(score_of(assignment.allocation, seed) for seed in assignment.seeds)
    outcome = Measured(scores, seconds=0.25, worker="here", base=BASE if assignment.score_base else None)
    return replace(outcome, **changes)


def evaluate(assignment, report):
    return measured(assignment)


def climb(assignment, report, *, bad):
    """Reports at each rung an accuracy that no trial ends with, and a NLL that is far worse where `bad`, else better than all before."""
    rungs = []
    for step in assignment.rungs:
        rungs.append(RungScore(assignment.seeds[0], step, 1.0, (2.0 if bad else 1.0) - assignment.number / 1000))
        if not report(rungs[-1]):
            return Stopped(tuple(rungs), 0.25, "here")
    return measured(assignment, rungs=tuple(rungs))


@dataclass
class Desk:
    """One study in one database, opened as often as a test likes; every opening is a new connection, as after a crash."""

    url: str
    name: str
    readers: list[optuna.storages.RDBStorage] = field(default_factory=list)

    def create(self, **changes):
        """Make the study and open it."""
        self.spec = spec_of(**changes)
        Catalog(self.url).create(self.name, self.spec, {"versions": {"allocsearch": "test"}})
        return self.open()

    def open(self):
        return Catalog(self.url).open(self.name, self.spec, proposals_of(self.spec))

    def record(self):
        return Catalog(self.url).record(self.name)

    def stored(self):
        """The study as a user's plain `optuna.load_study` shows it."""
        self.readers.append(optuna.storages.RDBStorage(self.url))
        return optuna.load_study(study_name=self.name, storage=self.readers[-1])

    def close(self):
        for reader in self.readers:
            reader.engine.dispose()


def finish(study, *, most=1000):
    """Ask and tell until no more is wanted; returns the numbers in the order in which they ran."""
    numbers = []
    while (assignment := study.ask()) is not None:
        numbers.append(assignment.number)
        study.tell(assignment.number, measured(assignment))
        assert len(numbers) <= most, "the study wants trials for ever"
    return numbers


def allocation(text):
    return Allocation.parse(text)
