"""What a race is worth: some of the tokens spent on a second seed for the best few, instead of on further allocations."""

from dataclasses import replace

from replay_search import DEFAULT, STRATEGIES, search

from allocsearch.core.trial import SeedScore
from allocsearch.followup_spec import ReplicationSpec
from allocsearch.search.racing import Rules, race
from allocsearch.search.replicates import Replicated

CONTENDERS = ReplicationSpec.model_fields["contenders"].default
RACED = ("random-feasible", DEFAULT, "TPE + warm starts", "evolution")


def ablation(table, setting, num_repetitions):
    """Regrets of the named allocation at one budget, with a race and without, in points; truth is what neither of two seeds saw.

    With two seeds a race trains every contender once more and names the best mean. The table has no single rows, so right answers
    stand first; that leaves the means as they are, and with two seeds nothing else decides who leads.
    """
    if len(table.seeds) < 3:
        return []
    return [
        {"strategy": name, "with": [pair[0] for pair in pairs], "without": [pair[1] for pair in pairs]}
        for name in RACED
        for pairs in [[_regrets(table, STRATEGIES[name], setting, r) for r in range(num_repetitions)]]
    ]


def _regrets(table, strategy, setting, repetition):
    seeds = tuple(table.seeds[(repetition + i) % len(table.seeds)] for i in (0, 1))
    full = max(row.reports[seeds[0]][-1].tokens for row in table.rows)
    shorter = replace(setting, token_limit=setting.token_limit - CONTENDERS * full)
    found = [_finished(table, strategy, how, repetition) for how in (shorter, setting)]
    named = [_winner(table, found[0][:CONTENDERS], seeds), found[1][0].row]
    best = max(table.truth(row, *seeds) for row in table.inside)
    return [100 * (best - table.truth(row, *seeds)) for row in named]


def _finished(table, strategy, setting, repetition):
    """What ended within the tokens, best first."""
    trials = search(table, strategy, setting, mode="budget", repetition=repetition)
    ended = [trial for trial in trials if trial.accuracy is not None and trial.ended_at <= setting.token_limit]
    return sorted(ended, key=lambda trial: -trial.accuracy)


def _winner(table, contenders, seeds):
    num_rows = table.about["spec"]["proxy"]["search_rows"]
    rows = {trial.row.number: trial.row for trial in contenders}
    replicates = [
        Replicated(number, row.trainable, tuple(_score(row, seed, num_rows) for seed in seeds)) for number, row in rows.items()
    ]  # fmt: skip
    return rows[race(replicates, Rules(seeds)).contenders[0]]


def _score(row, seed, num_rows):
    last = row.reports[seed][-1]
    right = round(last.accuracy * num_rows)
    return SeedScore(seed, (True,) * right + (False,) * (num_rows - right), (last.nll,) * num_rows)
