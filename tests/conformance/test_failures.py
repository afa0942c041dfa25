"""How failures are told, and what they share."""

import socket

import pytest

from allocsearch.backends.evaluation import outcome_of
from allocsearch.backends.trial_records import common
from allocsearch.core.trial import Failed, Lost


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("a shape\n  of 3"), Failed("RuntimeError: a shape of 3")),
        (RuntimeError(), Failed("RuntimeError")),
        (ValueError(9 * "too long " * 99), Failed(f"ValueError: {9 * 'too long ' * 99}"[:499] + "…")),
        (OSError("no disk"), Lost(f"OSError on {socket.gethostname()}: no disk", by_machine=True)),
    ],
)
def test_whatever_an_evaluator_raises_is_one_line(error, outcome):
    def raises(*_):
        raise error

    found = outcome_of(raises, None, None)
    assert type(found) is type(outcome)
    assert found.reason == outcome.reason


def test_reasons_that_differ_in_numbers_are_one():
    steps = [f"the loss must be finite, but it is nan at step {step} of seed 0" for step in (3, 7, 9, 7)]
    assert common([*steps, "no such file"]) == (
        "4 × the loss must be finite, but it is nan at step 7 of seed 0 (2 with other numbers); 1 × no such file"
    )


def test_reasons_that_are_the_same_are_told_as_they_are():
    assert common(["b", "a", "a", "c", "d", "b", "a"]) == "3 × a; 2 × b; 1 × c"
    assert common(["object at 0x7f3a failed", "object at 0x1b2c failed"]).startswith("2 × object at ")
    assert common([]) == ""
