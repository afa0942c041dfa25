"""Measures what a study's proxy can resolve, before the search: some allocations, trained with several seeds.

They are warm starts and random proposals at the study's own targets, in a companion study, so that a calibration is resumed like a
search. Its seeds are its own: neither the search nor its confirmation uses them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from allocsearch.backends.catalog import Catalog
from allocsearch.beside import MADE_WITH, Beside, StageTrial
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import layer_costs
from allocsearch.core.errors import InputError
from allocsearch.core.trial import Assignment
from allocsearch.core.warm_starts import ONE_SHOT, SCORED_STARTS
from allocsearch.evidence import RESULT
from allocsearch.models import head_of
from allocsearch.options import HERE, Options
from allocsearch.planning import Plan, plan
from allocsearch.scores.starts import ScoredStart, one_shot_scores, scored_starts
from allocsearch.search import results
from allocsearch.search.calibration import Calibration, calibrate
from allocsearch.search.finalists import CALIBRATION_SEEDS, fresh_seeds
from allocsearch.search.replicates import replicated
from allocsearch.spec import StudySpec
from allocsearch.workplace import Say, prepare, versions

_ANOTHER_SEED: Final = 2_000_003
_SHARES_OF_STEPS: Final = (0.25, 0.5, 0.75)


class Calibrating:
    """A calibration under way: iterate to train what is missing, then ask for the result."""

    def __init__(self, beside: Beside, *, num_allocations: int, num_seeds: int) -> None:
        self.name = f"{beside.name}/calibration"
        self._beside = beside
        self._drafts = _drafts(beside.plan, num_allocations=num_allocations, num_seeds=num_seeds)

    def __iter__(self) -> Iterator[StageTrial]:
        """Train what is missing, seed by seed: a calibration that is cut short has whole seeds."""
        yield from self._beside.run("calibration", self._drafts)

    def result(self, scores: Sequence[str]) -> Calibration:
        """Measure noise and rank agreement, and keep them with the calibration.

        Args:
            scores: names of scores to hold against the proxy, training-free ones and `one-shot`.

        Raises:
            InputError: where fewer than four allocations have two seeds in common.
        """
        record = self._beside.catalog.record(self.name)
        wanted = {(draft.allocation, seed) for draft, _ in self._drafts for seed in draft.seeds}
        points = [p for p in results.points(record.trials) if (p.trial.assignment.allocation, *p.trial.assignment.seeds) in wanted]
        allocations = list(dict.fromkeys(point.trial.assignment.allocation for point in points))  # the order of `replicated`
        found = calibrate(
            replicated(points), num_steps=self._beside.plan.spec.proxy.num_steps, scores=self._scores(allocations, scores), seed=0
        )
        self._beside.catalog.note(self.name, RESULT, found.to_json())
        return found

    def _scores(self, allocations: Sequence[Allocation], names: Sequence[str]) -> dict[str, Sequence[float]]:
        planned, model = self._beside.plan, self._beside.evaluator.model
        of_layers = [name for name in names if name != ONE_SHOT]
        starts = scored_starts(of_layers, planned.spec, model=model, shape=planned.shape, budget=planned.budget)
        found: dict[str, Sequence[float]] = {start.name: [_placement(start, each, planned) for each in allocations] for start in starts}
        if ONE_SHOT in names:
            found[ONE_SHOT] = one_shot_scores(allocations, planned.spec, model=model, shape=planned.shape)
        return found


@contextmanager
def calibrating(
    spec: StudySpec, *, num_allocations: int, num_seeds: int, options: Options = HERE, say: Say = lambda _: None
) -> Iterator[Calibrating]:
    """The calibration of `spec`, which need not have been searched yet.

    Raises:
        InputError: for bad input, and where another process is at it.
    """
    planned = plan(spec)
    catalog = Catalog(options.storage)
    evaluator, digests = prepare(spec, spec.name, options, say)
    made_with = {**digests, "versions": versions(), "shape_digest": planned.shape.digest}
    with catalog.driving(spec.name):
        beside = Beside(catalog, planned, spec.name, evaluator, options, say, {key: made_with[key] for key in MADE_WITH})
        yield Calibrating(beside, num_allocations=num_allocations, num_seeds=num_seeds)


def scores_of(spec: StudySpec, *, one_shot: bool) -> tuple[str, ...]:
    """The scores that mean something for a study: none under a router per block or on an encoder. One-shot trains: it is asked for.

    Raises:
        InputError: where one-shot is asked for and means nothing.
    """
    why = "a router per block" if spec.routing.routing().per_block else "an encoder" if head_of(spec.model, spec.revision).modules else None
    if why is not None and one_shot:
        raise InputError(
            f"one-shot scores need a causal language model with a router per linear, but this is {why}: leave `--one-shot` out"
        )
    return () if why is not None else tuple(name for name in SCORED_STARTS if one_shot or name != ONE_SHOT)


def _drafts(planned: Plan, *, num_allocations: int, num_seeds: int) -> list[tuple[Assignment, str]]:
    spec, space = planned.spec, planned.space
    chosen = {start.allocation: start.name for start in planned.starts[: num_allocations // 3]}
    proposals = replace(planned.proposals, seed=spec.seed + _ANOTHER_SEED)
    for number in range(20 * num_allocations):  # a small space has fewer
        if len(chosen) == num_allocations:
            break
        chosen.setdefault(space.decode(proposals.random(number)), "random")
    seeds = fresh_seeds(spec.proxy.seeds, num_seeds, start=CALIBRATION_SEEDS)
    rungs = spec.proxy.rungs or tuple(sorted({max(1, round(share * spec.proxy.num_steps)) for share in _SHARES_OF_STEPS}))
    return [
        (Assignment(0, allocation, space.routing, (seed,), rungs, keep_weights=False), origin)
        for seed in seeds
        for allocation, origin in chosen.items()
    ]


def _placement(start: ScoredStart, allocation: Allocation, planned: Plan) -> float:
    """The mean layer score over an allocation's parameters: how far it puts them where the score is high."""
    costs = [layer.trainable for layer in layer_costs(allocation, planned.shape, planned.space.routing)]
    return sum(score * size for score, size in zip(start.scores, costs, strict=True)) / max(1, sum(costs))
