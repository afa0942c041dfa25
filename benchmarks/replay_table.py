"""A table of trained allocations as a finite search problem: what a search may see, and what is true."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from pyarrow import parquet

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget
from allocsearch.core.geometry import ModelShape
from allocsearch.core.layout import Axis, PartSpace, Sharing
from allocsearch.core.space import SearchSpace, SpaceTemplate
from allocsearch.models import model_shape
from allocsearch.spec import StudySpec

_BAND = 0.1  # rows whose size is within ten per cent of the wish's


@dataclass(frozen=True)
class Report:
    """What one training had shown by one step; `tokens` is all that it had cost by then."""

    step: int
    tokens: int
    accuracy: float
    nll: float


@dataclass(frozen=True)
class Row:
    """One allocation: its canonical point in the table's own space, and each seed's reports, the last of them at the end."""

    number: int
    origin: str
    trainable: int
    point: dict[str, int]
    reports: dict[int, tuple[Report, ...]]
    test: dict[int, float]


@dataclass(frozen=True)
class Table:
    """The rows that have every seed, the space that expresses them all, and the study's budget on the model."""

    name: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    space: SearchSpace
    budget: Budget
    about: dict
    num_left_out: int

    @property
    def warm_starts(self) -> list[Row]:
        """The rows that the table's own study would start with."""
        return [row for row in self.rows if row.origin in self.about["spec"]["warm_starts"]]

    @cached_property
    def inside(self) -> list[Row]:
        """The rows inside the budget."""
        return [row for row in self.rows if not self.budget.excess(self.space.cost(row.point))]

    def truth(self, row: Row, *seen: int) -> float:
        """The mean accuracy over the seeds that the search did not see, on the test rows where the table has them."""
        return float(np.mean([row.test.get(seed, row.reports[seed][-1].accuracy) for seed in self.seeds if seed not in seen]))

    def nearest(self, point: dict[str, int], unseen: list[Row]) -> Row:
        """The row that stands for a wish: of the unseen rows of about its size, the one nearest to it.

        About its size: trainable parameters within a tenth, or, where there is none, the nearest on a log scale. Nearest: the sum over
        layers of the distances in log2(1 + experts × rank) and in log2(1 + experts).
        """
        size = self.space.cost(point).trainable
        gaps = [abs(math.log(row.trainable / size)) for row in unseen]
        limit = max(_BAND, min(gaps))
        own = _coordinates(point)
        alike = [row for row, gap in zip(unseen, gaps, strict=True) if gap <= limit]
        return min(alike, key=lambda row: (float(np.abs(_coordinates(row.point) - own).sum()), row.number))


def load(path: Path, shape: ModelShape | None = None) -> Table:
    """Read what tabular_build.py combined; a table that is still growing gives the allocations that are complete."""
    table = parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"allocsearch"])
    spec = StudySpec.from_json(about["spec"], where=str(path))
    shape = model_shape(spec.model, spec.revision) if shape is None else shape
    found = defaultdict(list)
    for row in table.to_pylist():
        found[row["number"]].append(row)
    seeds = tuple(sorted({row["seed"] for rows in found.values() for row in rows}))
    steps = {row["step"] for rows in found.values() for row in rows}
    complete = [rows for _, rows in sorted(found.items()) if len(rows) == len(seeds) * len(steps) and _plain(rows[0]["allocation"])]
    if len(seeds) < 2 or len(complete) < 8:
        raise SystemExit(f"a replay needs 2 seeds and 8 complete allocations, but {path} has {len(seeds)} and {len(complete)}: let it grow")
    space = _space([Allocation.parse(rows[0]["allocation"]) for rows in complete], shape, spec)
    budget = Budget.parse(spec.budget).resolve(shape)
    return Table(path.stem, tuple(_row(rows, space) for rows in complete), seeds, space, budget, about, len(found) - len(complete))


def _row(rows: list[dict], space: SearchSpace) -> Row:
    first = rows[0]
    reports = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["step"]):
        reports[row["seed"]].append(Report(row["step"], row["train_tokens"], row["accuracy"], row["nll"]))
    test = {row["seed"]: row["test_accuracy"] for row in rows if row["final"] and row["test_accuracy"] is not None}
    point = space.encode(Allocation.parse(first["allocation"]))
    return Row(first["number"], first["origin"], first["trainable"], point, {s: tuple(r) for s, r in reports.items()}, test)


def _plain(text: str) -> bool:
    """Whether every layer has experts of one rank, the same on every target: what one count and one rank per layer express."""
    return all(plan.uniform is not None and len(set(plan.uniform)) <= 1 for plan in Allocation.parse(text))


def _space(allocations: list[Allocation], shape: ModelShape, spec: StudySpec) -> SearchSpace:
    """A count and a rank for each layer, with every value that a row has."""
    sizes = [plan.uniform or () for allocation in allocations for plan in allocation]
    counts = tuple(sorted({0, *(len(own) for own in sizes)}))
    ranks = tuple(sorted({rank for own in sizes for rank in own}))
    share = Sharing(tie=1)
    part = PartSpace("all", Axis(ranks, share), Axis(counts, share))
    return SpaceTemplate("table", (part,)).bind(shape, spec.routing.routing())


def _coordinates(point: dict[str, int]) -> np.ndarray:
    values = np.array(list(point.values()), dtype=float)  # counts of all layers first, then ranks
    counts, ranks = np.split(values, 2)
    return np.log2(1 + np.concatenate([counts * ranks, counts]))
