"""The commands that a command tells its user to type next: typed as they stand, they work."""

import shlex

import pytest
import sqlalchemy as sa

from allocsearch import board, page
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.commands import command, flags
from allocsearch.backends.inline_executor import InlineExecutor
from allocsearch.backends.own_tables import LEASES
from allocsearch.core.errors import InputError, LostLeaseError
from allocsearch.report import report
from tests.conformance import toy

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


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@host/db", "postgresql://host/db?password=hunter2"])
def test_a_password_is_not_repeated(url):
    line = command("resume", "tiny", storage=url, inline=True)
    assert "hunter2" not in line
    variable, *words = shlex.split(line)
    assert variable.startswith("ALLOCSEARCH_STORAGE=")
    assert words == ["allocsearch", "resume", "tiny", "--inline"]


def test_what_cannot_be_parsed_is_left_out():
    assert command("resume", "tiny", storage="postgres:/hunter2", inline=True) == "allocsearch resume tiny --inline"


def test_what_is_not_set_is_no_option():
    assert flags({"max_seeds": 3, "budget": None, "inline": True, "one_shot": False}) == ["--max-seeds", "3", "--inline"]


def test_what_a_reader_is_told_to_type_is_about_the_same_storage(cli, tiny_study, tmp_path):
    place = ["--storage", f"sqlite:///{tmp_path / 'my studies.db'}"]
    assert told(cli("status", *place).stderr, "start one with: ") == ["run", "--budget", "8M-params", *place]
    assert told(cli("front", "tiny", *place, code=2).stderr, "none yet: ") == ["run", *place]
    for name in ("tiny", "other"):
        cli("run", tiny_study(trials=1, warm_starts=["uniform"], name=name), "--inline", *place)
    assert told(cli("export", "tiny", "--trial", 7, *place, code=2).stderr, "see ") == ["status", "tiny", *place]
    cli("confirm", "tiny", "--candidates", 1, "--seeds", 1, "--random-trials", 0, "--inline", *place)
    assert told(cli("compare", "tiny", "--against", "other", *place, code=2).stderr, "has not: ") == ["confirm", "other", *place]


def test_writers_are_told_to_type_what_is_about_the_same_storage(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    catalog, other = Catalog(url), Catalog(url)
    catalog.create("mine", toy.spec_of(), {})
    with pytest.raises(InputError, match=f"resume mine --storage {url}"):
        catalog.create("mine", toy.spec_of(), {})
    with catalog.driving("mine"):
        with catalog._storage.engine.begin() as connection:
            connection.execute(sa.update(LEASES).values(expires_at=0.0))
        with other.driving("mine"), pytest.raises(LostLeaseError, match=f"status mine --storage {url}"):
            catalog.note("mine", "key", "value")


def test_what_a_page_tells_to_type_is_quoted(tmp_path):
    """A page goes to readers with storages of their own, and a name may hold what a shell would read otherwise."""
    desk = toy.Desk(f"sqlite:///{tmp_path / 'studies.db'}", "my study; ls")
    toy.finish(desk.create(trials=2))
    record = desk.record()
    printed = [board.note(record, None), page.markdown(report(record, None, None)), board.note(record, report(record, None, None))]
    lines = [line for text in printed for line in text.splitlines() if line.startswith("allocsearch ")]
    assert {shlex.split(line)[1] for line in lines} == {"resume", "confirm", "run", "compare", "export"}
    assert all(shlex.split(line)[2] in {"my study; ls", "my study; ls.yaml"} for line in lines)
    desk.close()
