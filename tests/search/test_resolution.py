"""Resolution: it shrinks with seeds and rows, and its inverses undo it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocsearch.search.resolution import Design, resolvable, rows_needed, seeds_needed
from tests.search.simulation import NLL

few = settings(max_examples=25, deadline=None)


@few
@given(st.integers(2, 6), st.integers(50, 4000), st.integers(2, 20))
def test_more_of_anything_resolves_more(seeds, rows, allocations):
    design = Design(num_allocations=allocations)
    here = resolvable(NLL, num_seeds=seeds, num_rows=rows, design=design)
    assert resolvable(NLL, num_seeds=seeds, num_rows=2 * rows, design=design) < here
    assert resolvable(NLL, num_seeds=seeds + 1, num_rows=rows, design=design) < here
    assert resolvable(NLL, num_seeds=seeds, num_rows=rows, design=replace(design, alpha=0.01)) > here
    assert resolvable(NLL, num_seeds=seeds, num_rows=rows, design=replace(design, power=0.9)) > here
    assert resolvable(NLL, num_seeds=seeds, num_rows=rows, design=replace(design, sides=1)) < here


@few
@given(st.integers(2, 6), st.floats(0.012, 0.05))
def test_the_rows_needed_are_enough_and_none_too_many(seeds, difference):
    rows = rows_needed(NLL, difference, num_seeds=seeds)
    assert rows is None or (
        resolvable(NLL, num_seeds=seeds, num_rows=rows) <= difference < resolvable(NLL, num_seeds=seeds, num_rows=rows - 1)
    )


@few
@given(st.integers(300, 3000), st.floats(0.012, 0.05))
def test_the_seeds_needed_are_enough_and_none_too_many(rows, difference):
    seeds = seeds_needed(NLL, difference, num_rows=rows)
    assert seeds is None or resolvable(NLL, num_seeds=seeds, num_rows=rows) <= difference
    assert seeds in {None, 2} or resolvable(NLL, num_seeds=seeds - 1, num_rows=rows) > difference


def test_rows_cannot_mend_what_seeds_blur():
    noisy = replace(NLL, allocation_seed=1.0)
    assert rows_needed(noisy, 0.01, num_seeds=3) is None
    assert seeds_needed(noisy, 0.01, num_rows=10_000) is None


def test_without_noise_everything_is_resolved():
    quiet = replace(NLL, allocation_seed=0.0, allocation_row=0.0, residual=0.0)
    assert resolvable(quiet, num_seeds=2, num_rows=10) == 0
    assert rows_needed(quiet, 0.01, num_seeds=2) == 1


def test_a_design_must_make_sense():
    for wrong in ({"num_allocations": 1}, {"alpha": 0.0}, {"power": 1.0}, {"sides": 3}):
        with pytest.raises(ValueError, match="must hold, but got"):
            Design(**wrong)
