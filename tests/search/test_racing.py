"""Races: the best is kept as often as promised, the bad drop out, and a race goes on from what is recorded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocsearch.search.racing import Rules, race
from allocsearch.search.replicates import Replicated
from tests.search import simulation

SEEDS = (7, 3, 11, 5, 2)
RULES = Rules(SEEDS, metric="nll", min_gain=0.0)
QUIET_ROWS = replace(simulation.NLL, allocation_row=0.0)
WAIT = "running"


def field(leads, *, seed=0, rows=12, studies=1, noise=QUIET_ROWS, params=None):
    gains = simulation.nll(np.random.default_rng(seed), leads, studies=studies, seeds=len(SEEDS), rows=rows, noise=noise)
    return [simulation.replicates((gain > -0.3, gain), seeds=SEEDS, params=params) for gain in gains]


def first(contenders, num_seeds):
    return [Replicated(one.number, one.params, one.scores[:num_seeds]) for one in contenders]


def ran(contenders, rules=RULES):
    """The race as it would go, one answer after another, and the trainings that it took."""
    by_number = {one.number: one for one in contenders}
    known, spent = {one.number: {rules.seeds[0]} for one in contenders}, 0
    while True:
        now = [replace(by_number[n], scores=tuple(s for s in by_number[n].scores if s.seed in seeds)) for n, seeds in known.items()]
        missing = race(now, rules).missing
        if not missing:
            return race(now, rules), spent
        spent += len(missing)
        for number, seed in missing:
            known[number].add(seed)


@pytest.mark.parametrize("noise", [simulation.NLL, QUIET_ROWS], ids=["all noise", "quiet rows"])
def test_the_best_is_dropped_no_more_often_than_promised(noise):
    """All are equal, so each is the best as well as any other; they were promising by the luck of the first seed, which counts too."""
    entered = dropped = 0
    for contenders in field([0.0] * 24, studies=150, noise=noise):
        promising = sorted(contenders, key=lambda one: one.scores[0].mean_nll)[:6]
        entered += len(promising)
        dropped += len(race(promising, RULES).dropped)
    assert simulation.at_most(dropped, entered, 0.05)


def test_the_bad_drop_out_and_save_their_seeds():
    found = [ran(contenders) for contenders in field([0.0, 0.0, -0.3, -0.3, -0.3, -0.3], studies=20)]
    assert all(set(result.dropped) >= {2, 3, 4, 5} for result, _ in found)
    assert np.mean([spent for _, spent in found]) < 0.7 * 6 * 4
    assert {result.contenders[0] for result, _ in found} == {0, 1}


def test_the_leader_comes_first_and_is_never_dropped():
    for contenders in field([0.0, -0.02, -0.04, -0.06], studies=20):
        result, _ = ran(contenders)
        means = {one.number: np.mean([s.mean_nll for s in one.scores[: result.num_seeds]]) for one in contenders}
        assert result.contenders[0] == min(means, key=means.get)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_race_is_decided_by_what_is_recorded_in_whatever_order(data):
    (contenders,) = field([0.0, 0.0, -0.1, -0.3], seed=data.draw(st.integers(0, 50)))
    known = first(contenders, data.draw(st.integers(1, 5)))
    shuffled = [replace(one, scores=tuple(data.draw(st.permutations(one.scores)))) for one in data.draw(st.permutations(known))]
    assert race(shuffled, RULES) == race(known, RULES)
    state = race(known, RULES)
    assert (state.state == WAIT) == bool(state.missing)
    for number, seed in state.missing:
        assert number in state.contenders
        assert seed in SEEDS
    assert set(state.contenders) | set(state.dropped) | set(state.withdrawn) == {one.number for one in contenders}


def test_all_are_asked_for_the_next_seed_in_the_common_order():
    (contenders,) = field([0.0, 0.0, 0.0])
    assert race(first(contenders, 1), RULES).missing == ((0, 3), (1, 3), (2, 3))
    late = [*first(contenders, 2)[:2], *first(contenders, 1)[2:]]
    assert race(late, RULES).missing == ((2, 3),)
    assert race([replace(one, scores=()) for one in contenders], RULES).missing[:3] == ((0, 7), (1, 7), (2, 7))


def test_further_results_do_not_change_what_was_decided():
    """A straggler of a dropped trial, recorded late, does not bring it back."""
    for contenders in field([0.0, 0.0, -0.3], studies=5):
        early, late = race(first(contenders, 3), RULES), race(contenders, RULES)
        assert early.dropped.items() <= late.dropped.items()


def test_a_training_that_failed_for_good_withdraws_its_trial():
    (contenders,) = field([0.0, 0.0, 0.0])
    state = race(first(contenders, 1), RULES, given_up={(1, 3)})
    assert (state.withdrawn, state.missing) == ((1,), ((0, 3), (2, 3)))
    alone = race(first(contenders, 1), RULES, given_up={(1, 3), (2, 3)})
    assert (alone.state, alone.contenders, alone.missing) == ("one left", (0,), ())


def test_a_race_ends_when_the_rows_decide():
    rules = replace(RULES, min_gain=0.05)
    rowdy = replace(simulation.NLL, allocation_row=0.5**2, allocation_seed=1e-6, residual=1e-4)
    (contenders,) = field([0.0] * 4, rows=100, noise=rowdy)
    assert (race(contenders, rules).state, race(contenders, rules).num_seeds) == ("rows decide", 2)
    assert race(contenders, RULES).state == "seeds spent"


def test_along_a_front_only_the_smaller_can_drop_the_larger():
    (contenders,) = field([0.0, -0.5], params=[100, 10])
    assert race(contenders, RULES).state == "one left"
    assert race(contenders, replace(RULES, within_size=True)).dropped == {}
    (contenders,) = field([-0.5, 0.0], params=[100, 10])
    assert set(race(contenders, replace(RULES, within_size=True)).dropped) == {0}


def test_nobody_races_alone():
    (contenders,) = field([0.0])
    assert race(contenders, RULES).state == "one left"


def test_rules_must_make_sense():
    for wrong, text in (
        ({"seeds": (1,)}, "two or more"),
        ({"seeds": (1, 1)}, "distinct"),
        ({"alpha": 1.0}, "alpha"),
        ({"min_gain": 1.0}, "min_gain"),
    ):
        with pytest.raises(ValueError, match=text):
            replace(RULES, **wrong)
