"""What a sampler sees of a study: a bounded part of it, and the same whoever opened the study and when."""

import pytest
from optuna.trial import TrialState, create_trial

from allocsearch.backends.optuna_sampling import proposer
from tests.conformance.toy import proposals_of, spec_of

FREE = {"experts": {"choices": [0, 1, 2, 3, 4], "share": {"tie": 1}}, "rank": {"choices": [1, 2, 3, 4, 6, 8], "share": {"tie": 1}}}
WINDOW, BLOCK = 9, 4
LEARNING = ["tpe", "nsga2", "evolution"]


def mirror_of(name, directions, *, batch=None, seed=3):
    mirror = proposer(name, proposals=proposals_of(spec_of(part=FREE)), directions=directions, num_trials=24, seed=seed, batch=batch)
    mirror.window, mirror.block = WINDOW, BLOCK
    return mirror


def end_of(number, point, directions):
    """Every seventh trial fails, every fifth is stopped."""
    if number % 7 == 3:
        return TrialState.FAIL, None
    if number % 5 == 2:
        return TrialState.PRUNED, None
    return TrialState.COMPLETE, [float(sum(point.values()) % 11), float(sum(point.values()))][: len(directions)]


def searched(name, directions, *, trials=48, slow=(), batch=None):
    """A search through one mirror: what was proposed for each trial, and the rows of the real study as they were before each proposal."""
    mirror, proposals = mirror_of(name, directions, batch=batch), proposals_of(spec_of(part=FREE))
    proposed, rows, histories, late = [], [], [], []
    for number in range(trials):
        histories.append(list(rows))
        values, notes = mirror.propose(number)
        proposed.append((values, notes))
        point = proposals.projected(values, number)
        mirror.start(number, point, notes)
        row = {"params": point, "distributions": mirror.distributions, "system_attrs": notes}
        rows.append(create_trial(state=TrialState.RUNNING, **row))
        late.append((number, point, row))
        for ended in [one for one in late if one[0] not in slow or number >= one[0] + 20]:
            late.remove(ended)
            state, values = end_of(ended[0], ended[1], directions)
            mirror.finish(ended[0], state, values, {})
            rows[ended[0]] = create_trial(state=state, values=values, **ended[2])
    return mirror, proposed, histories


def reopened(name, directions, history, *, batch=None):
    mirror = mirror_of(name, directions, batch=batch)
    for number, row in enumerate(history):
        row.number = number
        mirror.replay(row)
    return mirror


@pytest.mark.parametrize("directions", [("maximize",), ("maximize", "minimize")])
@pytest.mark.parametrize("name", LEARNING)
def test_a_reopened_study_goes_on_with_what_it_would_have_proposed(name, directions):
    """Whatever happened before: trials that failed or were stopped, and slow ones that ended after the window had gone on."""
    _, proposed, histories = searched(name, directions, slow=(0, 5, 20))
    for number in (0, 1, 8, 13, 14, 25, 26, 40, 47):
        assert reopened(name, directions, histories[number]).propose(number) == proposed[number]


@pytest.mark.parametrize("name", LEARNING)
def test_a_sampler_sees_a_bounded_part_of_the_study(name):
    mirror, *_ = searched(name, ("maximize", "minimize"), trials=120)
    old = [seen for seen in mirror._seen.values() if seen.number < mirror._first]
    assert WINDOW <= 120 - mirror._first < WINDOW + BLOCK + 1
    assert len({seen.values[1] for seen in old}) == len(old), "a front has one trial of each size"
    assert len(mirror._seen) < 60
    assert len(mirror._study.trials) < len(mirror._seen) + 2 * BLOCK, "withdrawn proposals go away, too"


@pytest.mark.parametrize("name", LEARNING)
def test_in_batches_nothing_depends_on_which_trial_of_a_batch_ended_first(name):
    directions = ("maximize", "minimize")
    _, proposed, histories = searched(name, directions, batch=4)
    for number in (5, 6, 7, 22, 23):
        batch = range(number // 4 * 4, number)
        running = [create_trial(state=TrialState.RUNNING, params=row.params, distributions=row.distributions, system_attrs=row.system_attrs)
                   if i in batch else row for i, row in enumerate(histories[number])]  # fmt: skip
        assert reopened(name, directions, running, batch=4).propose(number) == proposed[number]


@pytest.mark.parametrize("name", LEARNING)
def test_another_seed_attempt_or_number_proposes_something_else(name):
    def point(seed, number, attempt):
        return tuple(mirror_of(name, ("maximize",), seed=seed).propose(number, attempt)[0].values())

    found = {point(seed, number, attempt) for seed in (1, 2) for number in (0, 4) for attempt in (0, 1)}
    assert len(found) > 5
