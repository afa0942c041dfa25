"""A limit on spending, as a user meets it."""


def test_a_search_ends_at_its_limit_and_goes_on_with_a_raised_one(cli, tiny_study):
    wanted = {"trials": 4, "confirmation": {"candidates": 1, "seeds": 1, "random_trials": 1}}
    path = tiny_study(**wanted, limits={"max_tokens": 1})
    result = cli("run", path, "--inline")
    assert "the study ends here with 1 of 4 trials, since `limits.max_tokens` of 1 is reached" in result.stderr
    assert "allocsearch resume tiny --inline --max-tokens …" in result.stderr
    assert "winner: trial 0" in result.stdout
    found = cli.json("status", "tiny")
    assert (found["counts"]["finished"], found["complete"], found["limits"]["max_tokens"]) == (1, False, 1)
    of_one = found["spent"]["tokens"]
    assert of_one > 1
    assert found["spent"]["hours"] > 0
    tiny_study(**wanted, limits={"max_tokens": 2, "max_hours": 1})  # an edited file is no other study
    resumed = cli("resume", "tiny", "--inline").stderr
    assert "1 of 4 trials, since `limits.max_tokens` of 2 is reached" in resumed
    assert "`limits.max_hours` in the study's file is 1.0 now" in resumed
    result = cli("resume", "tiny", "--inline", "--max-tokens", 4 * of_one + 1)  # the search ends, what follows it does not
    assert "the study ends here with 4 of 4 trials" in result.stderr
    assert "in the study's file" not in result.stderr, "an option outlives a file that stays as it was"
    assert not cli.json("status", "tiny")["complete"]
    assert cli.json("resume", "tiny", "--inline", "--max-tokens", 100 * of_one)["study"] == "tiny"
    assert cli.json("status", "tiny")["complete"]
    assert f"of {100 * of_one:,} tokens spent" in cli("status", "tiny").stdout
