"""What a first-time user gets wrong: one helpful line each, the documented exit code, nothing half-written."""

import shutil
import sys

import pytest
from safetensors.torch import load_file, save_file

from tests.e2e.conftest import Cli

TEN = {
    "a study's name with a typo": (["run", "quickstrat"], 2, "did you mean 'quickstart'?"),
    "a model's name with a typo": (["run", "mine.yaml", "--model", "smollm2-136m"], 2, "smollm2-135m"),
    "a space's name with a typo": (["run", "mine.yaml", "--space", "hillo"], 2, "did you mean 'hilo'?"),
    "a budget without its unit": (["run", "mine.yaml", "--budget", "8M"], 2, "did you mean 8M-params?"),
    "a budget that nothing fits": (["run", "mine.yaml", "--budget", "400-params"], 3, "raise the budget"),
    "a key of the file with a typo": (["run", "typo.yaml"], 2, "typo.yaml, line 3: `budjet` is not a key here: did you mean `budget`?"),
    "a column that the data do not have": (["run", "columns.yaml"], 2, "has no 'txt': it has text, label"),
    "the same name for another search": (["run", "mine.yaml", "--budget", "15K-params"], 2, "allocsearch resume mine"),
    "a result that is asked for by a wrong name": (["front", "mien"], 2, "did you mean 'mine'?"),
    "a study where a config is meant": (["train", "mine"], 2, "allocsearch export NAME -o best.yaml"),
}
"""What a first-time user most likely gets wrong: what they type, the exit code, and the part of the line that helps them on."""
PLACES = {
    "no cluster": (["--address", "127.0.0.1:1"], "must answer at '127.0.0.1:1'"),
    "an address that is none": (["--address", "nowhere"], "must answer at 'nowhere'"),
    "Ray Client": (["--address", "ray://host:10001"], "credentials"),
    "weights below a file": (["--inline", "--artifacts", "{home}/file/below"], "give another with --artifacts"),
}


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--budget", "50 MB", "50M-params"),
        ("--budget", "3m-activ", "did you mean 3M-active?"),
        ("--budget", "1.5", "did you mean 1.5%?"),
        ("--budget", "800000", "did you mean 800000-params?"),
        ("--budget", "0-params", "each must be positive"),
        ("--budget", "8M-params,9M-params", "'params' twice"),
        ("--budget", "", "is empty"),
        ("--trials", "0", "greater than or equal to 1"),
        ("--sampler", "tpee", "not one of 'tpe'"),
        ("--objective", "acc", "not one of 'pareto'"),
        ("--model", "./nowhere", "nothing is there"),
        ("--task", "polarity", "sentence-polarity"),
        ("--task", "nowhere.yaml", "must be a file that is there"),
        ("--space", "hillo", "did you mean 'hilo'"),
        ("--seed", "2147483648", "less than 2147483648"),
        ("--name", "no/slash", "(got 'no/slash')"),
        ("--margin", "0", "greater than or equal to 0.01"),
        ("--gpus", "1.5", "whole number"),
        ("--threads", "5000", "less than or equal to 1024"),
        ("--memory-gb", "1e9", "less than or equal to 1000000"),
        ("--workers", "many", "valid integer"),
    ],
)
def test_a_bad_value_names_its_option_and_no_file(cli, tiny_study, option, value, hint):
    study = tiny_study()
    lines = cli("run", study, "--dry-run", option, value, code=2).stderr.splitlines()
    assert len(lines) == 1
    assert option in lines[0]
    assert hint in lines[0]
    assert str(study) not in lines[0]


@pytest.fixture(scope="module")
def used(tmp_path_factory, write_study, tiny_rows):
    """A home with one finished study, and the files of two that are wrong."""
    cli = Cli(tmp_path_factory.mktemp("ten") / "home")
    file = write_study(cli.home / "mine.yaml", name="mine", trials=1, warm_starts=["uniform"])
    (cli.home / "typo.yaml").write_text("# mine\n\nbudjet: 20K-params\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    task = {"name": "t", "path": str(tiny_rows), "template": "{txt}", "choices": ["a", "b"], "label_column": "label"}
    write_study(cli.home / "columns.yaml", name="columns", task=task)
    cli("run", "mine.yaml", "--inline")
    return cli


def files(home):
    """But for those that SQLite has beside a database while a connection to it is open."""
    return sorted(file for file in home.rglob("*") if not file.name.endswith(("-wal", "-shm")))


@pytest.mark.parametrize("mistake", TEN)
def test_each_of_the_ten_gives_one_helpful_line_and_writes_nothing(used, mistake):
    words, code, hint = TEN[mistake]
    inline = ["--inline"] if words[0] == "run" else []
    before = files(used.home)
    lines = [line for line in used(*words, *inline, code=code).stderr.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert hint in lines[0]
    assert files(used.home) == before
    assert used.json("status")["studies"] == ["mine"]


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_does_not_answer_is_told_before_anything_is_written(cli, tiny_study, place):
    words, hint = PLACES[place]
    (cli.home / "file").touch()
    [line] = cli("run", tiny_study(), *(word.format(home=cli.home) for word in words), code=2).stderr.splitlines()
    assert hint in line
    assert cli.json("status")["studies"] == []


def test_a_limit_that_a_spec_could_not_have_is_refused(cli, tiny_study):
    cli("run", tiny_study(trials=1, warm_starts=["uniform"]), "--inline")
    [line] = cli("resume", "tiny", "--inline", "--max-hours", "0", code=2).stderr.splitlines()
    assert "--max-hours: Input should be greater than 0 (got 0.0)" in line
    assert cli.json("status", "tiny")["limits"] == {"max_hours": None, "max_gpu_hours": None, "max_tokens": None}


def test_a_corrupt_database_is_named_and_left_as_it_is(cli, tiny_study):
    database = cli.home / "studies.db"
    database.write_bytes(b"not a database, but somebody's notes" * 100)
    before = database.read_bytes()
    for command in (["run", tiny_study(), "--inline"], ["status"], ["front", "tiny"]):
        result = cli(*command, code=2)
        assert "studies.db" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert database.read_bytes() == before


def test_a_home_that_cannot_be_written_is_named(cli, tiny_study, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    cli.home.rmdir()
    process = cli.start  # permissions do not stop root, a file in the way does
    cli.env["ALLOCSEARCH_HOME"] = str(blocked / "home")
    home, cli.home = cli.home, tmp_path
    try:
        running = process("run", tiny_study(), "--inline")
        _, err = running.communicate(timeout=120)
    finally:
        cli.home = home
    assert running.returncode == 2
    assert "ALLOCSEARCH_HOME" in err
    assert [line for line in err.splitlines() if not line.startswith("loading ")] == [err.splitlines()[-1]]


def test_a_front_without_trials_is_exit_code_3(cli):
    assert "allocsearch run" in cli("front", "tiny", code=2).stderr


def test_passwords_stay_out_of_errors(cli):
    result = cli("status", "--storage", "postgresql://me:hunter2@127.0.0.1:1/none", code=2)
    assert "hunter2" not in result.stderr + result.stdout
    assert "127.0.0.1" in result.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["evaluate", "best.yaml"], "is not there"),
        (["evaluate", "studies.yaml"], "train it with allocsearch train"),
        (["export", "quickstart"], "it has none yet: allocsearch run"),
        (["cost", "--model", "smollm2-135m", "--allocation", "4x8"], "4x8*30"),
        (["models", "pull", "smolm2"], "smollm2-135m"),
        (["front", "x", "--storage", "studies.db"], "sqlite:///studies.db"),
    ],
)
def test_the_wrong_thing_at_the_wrong_place_is_told_in_one_line(cli, words, hint):
    (cli.home / "studies.yaml").write_text("schema: allocsearch/v1")
    lines = [line for line in cli(*words, code=2).stderr.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert hint in lines[0]


@pytest.mark.parametrize(
    ("words", "said", "where"),
    [
        (["export", "x", "--pick", "luckiest"], "--pick", "export"),
        (["run", "--trials"], "'--trials' requires an argument", "run"),
        (["models", "pull", "--nope"], "--nope", "models pull"),
        (["front"], "Missing argument 'name'", "front"),
        (["frnt"], "Did you mean 'front'?", ""),
    ],
)
def test_usage_errors_are_exit_code_2_and_name_the_help_to_ask_for(cli, words, said, where):
    [line] = cli(*words, code=2).stderr.splitlines()
    assert said in line
    assert line.endswith(f": see {' '.join(['allocsearch', *where.split()])} --help")


@pytest.mark.parametrize(
    ("package", "extra", "words"),
    [
        ("optuna_dashboard", "dashboard", ["dashboard"]),
        ("prometheus_client", "metrics", ["run", "quickstart", "--inline", "--metrics-port", "9"]),
        ("psycopg", "postgres", ["status", "--storage", "postgresql://host/db"]),
    ],
)
def test_what_an_extra_brings_is_named_with_the_command_that_installs_it(cli, monkeypatch, package, extra, words):
    monkeypatch.setitem(sys.modules, package, None)
    lines = [line for line in cli(*words, code=2).stderr.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert f"pip install 'allocsearch[{extra}]'" in lines[0]


def test_a_loss_that_is_never_finite_pauses_the_study_with_exit_code_4(cli, tiny_study, tiny_model, tmp_path):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    result = cli("run", tiny_study(model=str(broken)), "--inline", code=4)
    assert "3 × the loss must be finite, but it is nan at step 1 of seed 0" in result.stderr
    assert "allocsearch resume tiny" in result.stderr
    counts = cli.json("status", "tiny")["counts"]
    assert counts["failed"] == 3
    assert counts["running"] == 0
