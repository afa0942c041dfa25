"""No allocation over the budget reaches a worker: any space, budget and sampler, through every driver that a study has."""

from itertools import count
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allocsearch.backends.catalog import Catalog
from allocsearch.core.budget import cost
from allocsearch.core.errors import InfeasibleError
from allocsearch.core.trial import Failed, Infeasible, Lost, Measured, SeedScore, Stopped
from allocsearch.search.proposals import Proposals
from allocsearch.search.transfer import transferred
from allocsearch.spec import Sampler
from tests.conformance.toy import spec_of
from tests.strategies import projections

_names = count()
ENDS = {"stopped": Stopped((), 1.0), "failed": Failed("why"), "infeasible": Infeasible("too large"), "lost": Lost("gone")}


@st.composite
def cases(draw):
    """Proposals, and a point inside their budget."""
    space, point, budget = draw(projections())
    assume(len(space.dimensions) <= 6)  # each is a row of each trial
    try:
        return Proposals(space, budget, (0.3, 0.6, 1.0), draw(st.integers(0, 99))), space.project_point(point, budget)
    except InfeasibleError:
        assume(False)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return Catalog(f"sqlite:///{tmp_path_factory.mktemp('budget')}/studies.db")


@pytest.mark.parametrize("sampler", get_args(Sampler))
@settings(max_examples=2)
@given(case=cases(), ends=st.lists(st.sampled_from([*ENDS, "measured", "crash"]), min_size=6, max_size=6))
def test_no_allocation_over_the_budget_reaches_a_worker(catalog, sampler, case, ends):
    """The second study starts from what the first one found."""
    proposals, point = case
    spec, names = spec_of(sampler=sampler, trials=9, seed=proposals.seed), [f"budget-{next(_names)}" for _ in range(2)]
    starts = [proposals.space.decode(point)]
    for name in names:
        catalog.create(name, spec, {})
        study = catalog.open(name, spec, proposals)
        for allocation in starts:
            study.enqueue(allocation, "start")
        for end in ["measured", *ends]:
            assignment = study.ask()
            if assignment is None:
                break
            total = cost(assignment.allocation, proposals.space.shape, assignment.routing)
            assert proposals.budget.excess(total) == {}
            assert assignment.params == total.trainable
            if end == "crash":
                study = catalog.open(name, spec, proposals)
            else:
                study.tell(assignment.number, ENDS.get(end) or _score(assignment))
        starts = [found.allocation for found in transferred(study.trials(), proposals, study=name, count=3)]


@settings(max_examples=10)
@given(cases())
def test_only_what_is_inside_the_budget_is_put_in_line(catalog, case):
    proposals, _ = case
    largest = proposals.space.decode(proposals.space.largest)
    spec, name = spec_of(), f"budget-{next(_names)}"
    catalog.create(name, spec, {})
    study = catalog.open(name, spec, proposals)
    if proposals.budget.excess(proposals.space.cost(proposals.space.largest)):
        with pytest.raises(InfeasibleError, match=r"^an allocation must be inside the budget of .* over by .*: scale it to the budget"):
            study.enqueue(largest, "start")
        assert study.trials() == []
    else:
        study.enqueue(largest, "start")
        assert study.ask().allocation == largest


def _score(assignment):
    """The toy's own score is of its own shape."""
    return Measured((SeedScore(assignment.seeds[0], (True, False), (0.5, 1.0)),), 1.0)
