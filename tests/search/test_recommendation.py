"""What a calibration speaks for, and when a plan is warned of."""

from dataclasses import replace

import pytest

from allocsearch.search.calibration import Calibration
from allocsearch.search.recommendation import Plan, first_informative, recommend, warning
from allocsearch.search.signal import Estimate, RankAgreement, Signal
from tests.search.simulation import NLL


def agreement(value, margin=0.1):
    estimate = Estimate(value, value - margin, value + margin)
    return RankAgreement(estimate, estimate)


def signal(rungs, *, parameters=0.3, ceiling=0.8):
    sd = Estimate(0.01, 0.005, 0.02)
    return Signal(
        sd, sd, sd, sd, NLL, agreement(ceiling), agreement(ceiling), agreement(parameters), {s: agreement(v) for s, v in rungs.items()}, {}
    )


def calibration(rungs, **kwargs):
    found = signal(rungs, **kwargs)
    return Calibration(16, (0, 1, 2), 512, 100, found, found)


@pytest.mark.parametrize(
    ("rungs", "parameters", "first"),
    [
        ({10: 0.3, 20: 0.5, 40: 0.6}, 0.3, 20),
        ({10: 0.25, 20: 0.28}, -0.5, None),
        ({10: 0.31}, -0.5, 10),
        ({10: 0.75, 20: 0.8}, 0.95, 10),
        ({10: 0.65, 20: 0.8}, 0.95, 20),
        ({10: 0.9, 20: 0.3, 40: 0.9}, 0.3, 40),
        ({}, 0.3, None),
    ],
    ids=["beats parameters", "weak", "above the floor", "strong enough", "strong later", "lost again", "no rungs"],
)
def test_the_first_informative_rung(rungs, parameters, first):
    assert first_informative(signal(rungs, parameters=parameters)) == first


def test_the_ladder_doubles_and_ends_with_the_proxy():
    found = recommend(calibration({10: 0.2, 20: 0.5, 30: 0.55, 40: 0.6, 60: 0.7, 80: 0.78}))
    assert found.first_informative == 20
    assert (found.num_steps, found.long_enough) == (80, True)
    assert found.rungs == (20, 40)
    assert found.to_json()["rungs"] == [20, 40]


def test_ranks_that_still_change_ask_for_a_longer_proxy():
    found = recommend(calibration({20: 0.5, 50: 0.6}))
    assert (found.num_steps, found.long_enough) == (100, False)
    assert found.rungs == (20, 50)


def test_the_split_is_the_cheapest_that_resolves():
    found = recommend(calibration({}), difference=0.02)
    assert calibration({}).resolvable(found.num_seeds, found.num_rows) <= 0.02
    dear_rows = recommend(calibration({}), difference=0.02, rows_per_training=10.0)
    dear_seeds = recommend(calibration({}), difference=0.02, rows_per_training=100_000.0)
    assert dear_rows.num_rows < found.num_rows < dear_seeds.num_rows
    assert dear_rows.num_seeds > found.num_seeds > dear_seeds.num_seeds >= 2
    hopeless = recommend(calibration({}), difference=0.0001)
    assert (hopeless.num_seeds, hopeless.num_rows) == (None, None)


def test_a_plan_that_resolves_is_not_warned_of():
    assert warning(Plan(5, 5000, difference=0.03, rungs=(40,)), calibration({40: 0.7})) is None


def test_a_blind_plan_is_told_what_it_would_take():
    line = warning(Plan(2, 200), calibration({}))
    assert line.startswith("2 seeds on 200 rows resolve ")
    assert "not the 1.0 that are looked for: it would take " in line
    assert "\n" not in line
    assert "1 seed on 200 rows resolve" in warning(Plan(1, 200, metric="nll"), calibration({}))
    assert "mnat of NLL" in warning(Plan(1, 200, metric="nll"), calibration({}))
    noisy = replace(NLL, allocation_seed=1.0)
    found = calibration({})
    hopeless = replace(found, accuracy=replace(found.accuracy, variances=noisy))
    assert "it would take more seeds and more rows" in warning(Plan(2, 200), hopeless)


def test_a_hasty_plan_is_told_the_first_informative_rung():
    wide = {"num_seeds": 8, "num_rows": 10_000, "difference": 0.05}
    assert warning(Plan(rungs=(10, 40), **wide), calibration({10: 0.2, 40: 0.7})) == (
        "rung 10 does not yet tell how trials will end (the first one that does is 40)"
    )
    assert "(none does)" in warning(Plan(rungs=(10,), **wide), calibration({10: 0.2}))
    both = warning(Plan(1, 10, rungs=(10,)), calibration({}))
    assert "; rung 10" in both
