"""The commands that a command tells its user to type next: typed as they stand, they work."""

import shlex

import pytest

from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.commands import command, flags

PLACE = ["--storage", "sqlite:///other.db", "--artifacts", "my weights", "--inline"]


@pytest.fixture
def interrupted(monkeypatch):
    """Within it, a run is interrupted when its first trial has ended."""

    def run(executor, study, evaluator, *, scheduler=None):
        yield next(original(executor, study, evaluator, scheduler=scheduler))
        raise KeyboardInterrupt

    original = InlineExecutor.run
    with monkeypatch.context() as patch:
        patch.setattr(InlineExecutor, "run", run)
        yield patch


def told(text, after):
    """The words that `text` tells to type after `after`, without the program's name."""
    [line] = [line for line in text.splitlines() if after in line]
    program, *words = shlex.split(line.partition(after)[2])
    assert program == "allocsearch"
    return words


def test_a_run_in_another_place_goes_on_there_and_so_does_what_follows(cli, tiny_study, interrupted):
    stopped = cli("run", tiny_study(trials=2), *PLACE, code=130)
    again = told(stopped.stderr, "Continue with: ")
    assert again[:2] == ["resume", "tiny"]
    interrupted.undo()
    assert again == told(cli("run", tiny_study(trials=2), *PLACE, code=2).stderr, "continue it with: ")
    assert "resume tiny --storage sqlite:///other.db" in cli("status", "tiny", *PLACE[:2]).stderr
    done = cli(*again)
    cli(*told(done.stdout, "next: "))
    assert (cli.home / "best" / "adapter_model.safetensors").is_file()
    assert told(done.stdout, "to be sure of it: ") == ["confirm", "tiny", *PLACE]
    assert not (cli.home / "studies.db").exists(), "nothing has looked into the usual place"


def test_an_interrupted_confirmation_goes_on_as_the_same(cli, tiny_study, interrupted):
    interrupted.undo()
    cli("run", tiny_study(trials=2), "--inline")
    interrupted.setattr(InlineExecutor, "run", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    words = ["confirm", "tiny", "--candidates", "1", "--seeds", "2", "--random-trials", "0", "--margin", "2.0", "--json", "--inline"]
    assert told(cli(*words, code=130).stderr, "Continue with: ") == words


def test_an_interrupted_calibration_goes_on_as_the_same(cli, tiny_study, interrupted):
    study = ["calibrate", str(tiny_study()), "--budget", "15K-params", "--name", "mine"]
    asked = ["--allocations", "4", "--seeds", "2", "--no-scores", "--metric", "nll", "--margin", "5.0", "--inline"]
    stopped = cli(*study, *asked, code=130)
    again = told(stopped.stderr, "Continue with: ")
    assert again == [*study, *asked]
    interrupted.undo()
    assert "calibration: 7 trainings" in cli(*again).stderr


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@host/db", "postgresql://host/db?password=hunter2", "postgres:/hunter2"])
def test_a_password_is_not_repeated(url):
    line = command("resume", "tiny", storage=url, inline=True)
    assert "hunter2" not in line
    variable, *words = shlex.split(line)
    assert variable.startswith("ALLOCSEARCH_STORAGE=")
    assert words == ["allocsearch", "resume", "tiny", "--inline"]


def test_what_is_not_set_is_no_option():
    assert flags({"max_seeds": 3, "budget": None, "inline": True, "one_shot": False}) == ["--max-seeds", "3", "--inline"]
