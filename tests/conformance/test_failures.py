"""What failures share."""

from allocsearch.backends.trial_records import common


def test_reasons_that_differ_in_numbers_are_one():
    steps = [f"the loss must be finite, but it is nan at step {step} of seed 0" for step in (3, 7, 9, 7)]
    assert common([*steps, "no such file"]) == (
        "4 × the loss must be finite, but it is nan at step 7 of seed 0 (2 with other numbers); 1 × no such file"
    )


def test_reasons_that_are_the_same_are_told_as_they_are():
    assert common(["b", "a", "a", "c", "d", "b", "a"]) == "3 × a; 2 × b; 1 × c"
    assert common(["object at 0x7f3a failed", "object at 0x1b2c failed"]).startswith("2 × object at ")
    assert common([]) == ""
