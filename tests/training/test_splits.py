"""The laws of splits, orders and batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocsearch.core.errors import InputError
from allocsearch.training.examples import Example
from allocsearch.training.splits import batches, in_hash_order, normalised, select, split

ENOUGH = [Example(f"prompt {n}", ("no", "yes"), n % 2) for n in range(200)]

prompts = st.text(min_size=1, max_size=8)
examples = st.builds(Example, prompts, st.just(("no", "yes")), st.integers(0, 1))
lists = st.lists(examples, max_size=30)


def _prompts(part):
    return {normalised(example.prompt) for example in part}


@given(lists, lists)
def test_no_prompt_stands_in_two_parts(more, test):
    for parts in (split(ENOUGH + more), split(ENOUGH + more, [*ENOUGH[:3], *test])):
        train, search, tested = map(_prompts, (parts.train, parts.search, parts.test))
        assert not train & search
        assert not train & tested
        assert not search & tested


@given(lists)
def test_a_new_row_does_not_move_the_old_ones(more):
    before, after = split(ENOUGH), split(ENOUGH + more)
    for part in ("train", "search", "test"):
        assert set(getattr(before, part)) <= set(getattr(after, part))


@given(lists, st.randoms(use_true_random=False))
def test_the_order_of_the_file_means_nothing(more, random):
    rows = ENOUGH + more
    shuffled = random.sample(rows, len(rows))
    assert split(rows) == split(shuffled)
    assert in_hash_order(rows, seed=1) == in_hash_order(shuffled, seed=1)


@given(st.integers(1, 250), st.integers(1, 250), st.integers(0, 5))
def test_more_rows_extend_fewer_rows(few, many, seed):
    few, many = sorted((few, many))
    assert select(ENOUGH, many, seed=seed)[:few] == select(ENOUGH, few, seed=seed)


def test_duplicates_fall_in_one_part_whatever_their_case_and_spacing():
    doubled = [Example(f"  PROMPT  {n} ", ("no", "yes"), 0) for n in range(200)]
    parts = split(ENOUGH + doubled)
    assert [len(part) for part in (parts.train, parts.search, parts.test)] == [
        2 * len(part) for part in map(_prompts, (parts.train, parts.search, parts.test))
    ]


def test_rows_that_stand_in_the_test_data_are_left_out_and_counted():
    parts = split(ENOUGH, [Example(example.prompt.upper(), (), "text") for example in ENOUGH[:7]])
    assert parts.num_leaked == 7
    assert len(parts.test) == 7
    assert len(parts.train) + len(parts.search) == 193


def test_shares_are_about_eighty_ten_ten():
    many = [Example(f"row {n}", (), "text") for n in range(5000)]
    parts = split(many)
    assert len(parts.train) == pytest.approx(4000, abs=100)
    assert len(parts.search) == pytest.approx(500, abs=75)
    assert len(split(many, ENOUGH).search) == pytest.approx(5000 / 9, abs=75)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match=r"each part of a task must have rows, but 1 rows"):
        split(ENOUGH[:1])
    with pytest.raises(InputError, match=r"`num_rows >= 1` must hold, but got 0"):
        select(ENOUGH, 0, seed=0)


def test_seeds_select_different_rows():
    assert select(ENOUGH, 50, seed=0) != select(ENOUGH, 50, seed=1)
    assert len(select(ENOUGH, 500, seed=0)) == 200


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 9), st.integers(0, 12))
def test_batches_are_full_and_each_row_comes_once_per_shuffle(num_rows, batch_size, seed, num_steps):
    found = list(batches(num_rows, batch_size, seed=seed, num_steps=num_steps))
    assert [len(batch) for batch in found] == [batch_size] * num_steps
    flat = [row for batch in found for row in batch]
    for start in range(0, len(flat) - num_rows + 1, num_rows):
        assert sorted(flat[start : start + num_rows]) == list(range(num_rows))
    assert found == list(batches(num_rows, batch_size, seed=seed, num_steps=num_steps + 3))[:num_steps]


def test_batches_differ_between_seeds_and_shuffles():
    first, second = list(batches(64, 64, seed=0, num_steps=2))
    assert first != second
    assert first != next(batches(64, 64, seed=1, num_steps=1))
    with pytest.raises(InputError, match="`num_rows >= 1` and `batch_size >= 1`"):
        next(batches(0, 4, seed=0, num_steps=1))


def test_splits_and_batches_never_change():
    # A change here would make resumed and published studies train on other rows: it needs a new key and a note in the changelog.
    assert [example.prompt for example in split(ENOUGH).search[:3]] == ["prompt 2", "prompt 70", "prompt 109"]
    assert [example.prompt for example in select(ENOUGH, 3, seed=1)] == ["prompt 61", "prompt 195", "prompt 97"]
    assert next(batches(10, 10, seed=0, num_steps=1)) == [3, 4, 1, 9, 0, 8, 5, 2, 7, 6]
