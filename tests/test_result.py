"""The Python interface: a search as an object, and what it shows and writes."""

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml

import allocsearch
from allocsearch.core.errors import InfeasibleError, InputError
from allocsearch.exported import ExportedConfig

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        found = tmp_path_factory.mktemp("home")
        patch.setenv("ALLOCSEARCH_HOME", str(found))
        for name in ("ALLOCSEARCH_STORAGE", "ALLOCSEARCH_STORAGE_FILE"):
            patch.delenv(name, raising=False)
        yield found


@pytest.fixture(scope="module")
def study(home, write_study):
    confirmation = {"candidates": 1, "seeds": 2, "random_trials": 0}
    return str(write_study(home / "study.yaml", confirmation=confirmation))


@pytest.fixture(scope="module")
def found(study):
    return allocsearch.run(study, trials=4, inline=True, quiet=True)


def test_a_search_is_an_object_of_what_it_found(found):
    assert repr(found) == "SearchResult('tiny', 4 of 4 trials measured)"
    assert [point.trial.cost.trainable for point in found.front] == sorted(point.trial.cost.trainable for point in found.front)
    assert found.best.accuracy == max(point.accuracy for point in found.front)
    assert "biased upwards" in found.why("best")
    assert found.evidence.winner.searched == found.best.trial.number
    assert set(found.figures) >= {"front", "capacity", "budget"}
    assert all(type(figure).__name__ == "Figure" for figure in found.figures.values())


def test_frames_have_what_the_trials_have(found):
    trials, front = found.trials_frame(), found.front_frame()
    assert list(trials["trial"]) == [0, 1, 2, 3]
    assert set(trials["state"]) == {"finished"}
    assert set(trials.loc[trials["on_front"], "trial"]) == set(front["trial"]) == {point.trial.number for point in found.front}
    assert (trials["low"] <= trials["accuracy"]).all()
    assert (trials["accuracy"] <= trials["high"]).all()
    confirmed, leads = found.confirmed_frame(), found.leads_frame()
    assert confirmed.iloc[0]["trial"] == found.best.trial.number
    assert set(leads["against"]) == set(confirmed[confirmed["is_baseline"]]["label"]) - {confirmed.iloc[0]["label"]}
    for lead in leads.itertuples():
        other = confirmed[confirmed["label"] == lead.against].iloc[0]
        assert lead.difference == pytest.approx(confirmed.iloc[0]["accuracy"] - other["accuracy"])


def test_a_finished_search_is_read_and_an_open_one_continued(found, study):
    again = allocsearch.run(study, trials=4, inline=True, quiet=True)
    assert again.record.trials == found.record.trials
    with pytest.raises(InputError, match="trials: 4 → 5"):
        allocsearch.run(study, trials=5, inline=True, quiet=True)
    with pytest.raises(InputError, match="another spec"):
        allocsearch.run(study, trials=5, budget="19K-params", resume=True, inline=True, quiet=True)


def test_a_search_goes_on_where_it_was_cut(home, write_study, capsys):
    cut = str(write_study(home / "cut.yaml", name="cut", warm_starts=["uniform"]))
    first = allocsearch.run(cut, trials=1, inline=True)
    longer = allocsearch.run(cut, trials=2, resume=True, inline=True)
    assert longer.record.trials[:1] == first.record.trials
    assert len(longer.front_frame()) == len(longer.front)
    assert longer.evidence is None
    assert len(longer.confirmed_frame()) == len(longer.leads_frame()) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line for line in captured.err.splitlines() if line.startswith("trial   1")]


def test_an_export_is_that_of_the_command_line(found, home):
    written = found.export(home / "best.yaml", pick="smallest")
    config = ExportedConfig.model_validate(yaml.safe_load((home / "best.yaml").read_text()))
    assert config == written.config
    assert config.study.trial == found.pick("smallest").trial.number
    assert found.export().text.startswith("schema: allocsearch/v1")
    folder = found.export(home / "best", form="peft").path
    assert (folder / "adapter_model.safetensors").is_file()
    with pytest.raises(InputError, match="must be one of yaml, peft"):
        found.export(form="onnx")


class Texts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_a_notebook_shows_the_front_and_no_markup_of_the_users(found):
    named = found.record.spec.model_copy(update={"model": "<script>alert(1)</script>"})
    parser = Texts()
    parser.feed(replace(found, record=replace(found.record, spec=named))._repr_html_())
    assert "script" not in parser.tags
    assert parser.tags.count("tr") == 1 + len(found.front)
    assert str(found.best.trial.assignment.allocation) in parser.text
    assert "on the test rows, 2 fresh seed(s)" in parser.text


def test_a_study_without_a_result_says_so(found):
    empty = replace(found, record=replace(found.record, trials=()))
    assert empty.front == ()
    assert "0 of 4 trials measured" in repr(empty)
    assert "4 of 4" not in empty._repr_html_()
    with pytest.raises(InfeasibleError, match="must have finished"):
        _ = empty.best
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        allocsearch.load_study("tinny")


def test_the_package_stays_light():
    script = "import sys, allocsearch; print([m for m in ('torch', 'ray', 'optuna', 'pandas', 'plotly') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
