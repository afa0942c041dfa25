"""What a training leaves and what it refuses: the card, trackers, checkpoints, the hub, lm-eval, an encoder."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from markdown_it import MarkdownIt

from allocsearch.core.errors import InputError
from allocsearch.exported import ExportedConfig
from allocsearch.training import checkpoint
from allocsearch.training.tasks import load_task
from allocsearch.tuning import publishing, sources
from allocsearch.tuning.card import card, versions
from allocsearch.tuning.evaluation import Evaluation, evaluate
from allocsearch.tuning.finetuning import Request, train
from allocsearch.tuning.harness import harness
from allocsearch.tuning.settings import Settings
from tests.e2e.conftest import Cli
from tests.training.test_classify import tiny_encoder  # noqa: F401 - a fixture

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SETTINGS = Settings(0.2, 8, 1, 0.01, 32, gradient_checkpointing=False, dtype="float32", seed=0)


def exported(tmp_path, study):
    home = Cli(tmp_path / "home")
    home("run", study, "--inline")
    home("export", "tiny", "-o", tmp_path / "best.yaml")
    return sources.exported_config(tmp_path / "best.yaml")


@pytest.fixture
def study(tmp_path, write_study):
    return write_study(tmp_path / "study.yaml", trials=1, warm_starts=["uniform"])


@pytest.fixture
def request_of(tmp_path, study):
    found = exported(tmp_path, study)
    return lambda **options: Request(found, sources.task_of(str(study), found), SETTINGS, tmp_path / "adapter", **options)


COMPARISON = {
    "against": "lora", "trainable": 123_456, "difference": 0.0123, "interval": (-0.01, 0.03), "p_adjusted": 0.4,
    "verdict": "not distinguishable", "covers_seeds": True,
}  # fmt: skip
CONFIRMATION = {
    "accuracy": 0.8125, "interval": (0.78, 0.84), "interval_kind": "over rows", "nll": 0.5, "rows": 800, "seeds": (5, 6),
    "comparisons": [COMPARISON],
}  # fmt: skip
HOSTILE = "x`\n# owned\n\n<script>alert(1)</script> | ![i](http://evil.example/i) [go](http://evil.example)\n---\n"


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory, write_study):
    """An exported config with a confirmation, as a document."""
    folder = tmp_path_factory.mktemp("confirmed")
    found = exported(folder, write_study(folder / "study.yaml", trials=1, warm_starts=["uniform"]))
    return {**found.model_dump(by_alias=True, mode="json"), "confirmation": CONFIRMATION}


def card_of(document, *, task="reviews", settings=None, test=None):
    record = {"settings": settings or SETTINGS.to_json(), "task": task, "done": {"steps": 3}, "versions": versions()}
    return card(ExportedConfig.model_validate(document), record, test=test)


def test_the_card_carries_the_confirmation(confirmed):
    text = card_of(confirmed)
    assert "0.8125 [0.7800, 0.8400]" in text
    assert "| lora | 123,456 | +0.0123 | [-0.0100, +0.0300] | 0.400 | not distinguishable | yes |" in text
    assert "Not measured" in text
    assert yaml.safe_load(text.split("---")[1]) == {"library_name": "peft", "tags": ["moe-lora", "allocsearch"]}, "a folder is no hub id"


def outline(text):
    """What a card consists of, without its words."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text.split("\n---\n", 1)[1])
    return [token.type for token in tokens], [
        child.type for token in tokens for child in token.children or () if not child.type.startswith("text")
    ]


def named(document, word):
    """A card in which everything that somebody else may have named is `word`."""
    document = copy.deepcopy(document)
    for part, key in (("model", "id"), ("score", "interval_kind"), ("confirmation", "interval_kind"), ("study", "name"),
                      ("study", "origin"), ("study", "space")):  # fmt: skip
        document[part][key] = word
    document["confirmation"]["comparisons"][0]["against"] = document["picked"] = word
    document["allocation"] += " \n\n"
    return card_of(document, task=word, settings={"dtype": word}, test=Evaluation(word, "", 1, 1.0, (0.0, 1.0), 0.0))


def test_what_others_named_is_no_markup_in_the_card(confirmed):
    assert outline(named(confirmed, HOSTILE)) == outline(named(confirmed, "plain"))
    assert f"`{confirmed['allocation']}`" in named(confirmed, HOSTILE)


def test_tensorboard_gets_every_step(request_of, tmp_path):
    request = replace(request_of(report_to="tensorboard"), settings=replace(SETTINGS, gradient_checkpointing=True))
    done = train(request, lambda _: None)
    assert done.num_steps == 8
    events = list((tmp_path / "adapter").rglob("events.out.tfevents.*"))
    assert events
    assert sum(path.read_bytes().count(b"loss") for path in events) == 8


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half of it")
    with pytest.raises(InputError, match="must be whole"):
        checkpoint.load(tmp_path / "checkpoint.safetensors")


def test_a_pickled_adapter_is_never_opened(tmp_path, study):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"a pickle")
    task = load_task(sources.task_of(str(study), None).source())
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        evaluate(tmp_path, task, rows=1, dtype="float32", max_tokens=32)


def test_an_encoder_with_its_head_is_trained_and_evaluated(tmp_path, tiny_encoder, write_study):  # noqa: F811
    study = write_study(tmp_path / "study.yaml", model=str(tiny_encoder), trials=1, warm_starts=["uniform"])
    found = exported(tmp_path, study)
    task = sources.task_of(str(study), found)
    done = train(Request(found, task, SETTINGS, tmp_path / "adapter", evaluate=True), lambda _: None)
    again = evaluate(tmp_path / "adapter", load_task(task.source()), rows=None, dtype="float32", max_tokens=32)
    assert again == done.test
    assert "AutoPeftModelForSequenceClassification" in (tmp_path / "adapter" / "README.md").read_text()


class Hub:
    """A hub that notes what it is given."""

    calls: list = []

    def whoami(self):
        return {"name": "me"}

    def create_repo(self, repo, **options):
        Hub.calls.append(("create", repo, options))
        return f"https://hub/{repo}"

    def upload_folder(self, **options):
        Hub.calls.append(("upload", options["repo_id"], options))


def test_publishing_uploads_the_adapter_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setattr(publishing, "HfApi", Hub)
    Hub.calls = []
    assert publishing.publish(tmp_path, "me/it") == "https://hub/me/it"
    (_, _, made), (_, repo, sent) = Hub.calls
    assert made["private"] is True
    assert repo == "me/it"
    assert sent["folder_path"] == tmp_path
    assert "checkpoint.safetensors" not in sent["allow_patterns"]
    assert "adapter_model.safetensors" in sent["allow_patterns"]


@pytest.mark.parametrize(
    ("reachable", "login", "said"), [(False, True, "cannot be reached"), (True, False, "hf auth login"), (True, True, None)]
)
def test_publishing_is_checked_before_the_training(monkeypatch, reachable, login, said):
    def fail(_):
        raise OSError("no token")

    monkeypatch.setattr(publishing, "HfApi", Hub if login else type("Stranger", (), {"whoami": fail}))
    monkeypatch.setattr(publishing, "hub_reachable", lambda: reachable)
    config = SimpleNamespace(model=SimpleNamespace(id="owner/base"))
    if said is None:
        publishing.check_publishable(config, "me/it")
        return
    with pytest.raises(InputError, match=said):
        publishing.check_publishable(config, "me/it")


def test_lm_eval_gets_the_adapted_model_and_its_words(monkeypatch, request_of, tmp_path):
    """With a stand-in for the package: it notes what it is called with."""
    train(request_of(), lambda _: None)
    seen = {}
    package, models, huggingface = ModuleType("lm_eval"), ModuleType("lm_eval.models"), ModuleType("lm_eval.models.huggingface")
    huggingface.HFLM = SimpleNamespace

    def simple_evaluate(**options):
        if options["tasks"] == ["nonsense"]:
            raise KeyError("nonsense")
        if options["tasks"] == ["far"]:
            raise ConnectionError("Couldn't reach it on the hub")
        seen.update(options)
        return {"results": {"arc_easy": {"acc,none": 0.25}}}

    package.simple_evaluate = simple_evaluate
    package.__spec__ = SimpleNamespace(name="lm_eval")
    for module in (package, models, huggingface):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert harness(tmp_path / "adapter", ["arc_easy"], rows=7, dtype="float32") == {"arc_easy": {"acc,none": 0.25}}
    assert seen["limit"] == 7
    assert type(seen["model"].pretrained).__name__.startswith("Peft")
    with pytest.raises(InputError, match="must know the tasks nonsense"):
        harness(tmp_path / "adapter", ["nonsense"], rows=7, dtype="float32")
    with pytest.raises(InputError, match="unset HF_HUB_OFFLINE"):
        harness(tmp_path / "adapter", ["far"], rows=7, dtype="float32")


@pytest.mark.filterwarnings("ignore")  # lm-eval's own, and of what it imports
def test_lm_eval_scores_an_adapter_on_a_task_of_ones_own(request_of, tmp_path):
    pytest.importorskip("lm_eval", reason="the extra `harness` brings thirty packages along, which the other tests do without")
    done = train(request_of(evaluate=True), lambda _: None)
    rows = [row for row in load_task(request_of().task.source()).test if row.choices]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": row.prompt, "label": row.answer}) for row in rows))
    document = {
        "task": "tiny_reviews",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": ["negative", "positive"],
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(document))
    found = harness(tmp_path / "adapter", [str(tmp_path / "task.yaml")], rows=None, dtype="float32")
    assert found["tiny_reviews"]["acc,none"] == pytest.approx(done.test.accuracy)


def test_an_edited_record_is_passed_over(tmp_path):
    from allocsearch.tuning.folder import recorded

    assert recorded(tmp_path) == {}
    for text in ("not json", "[]", json.dumps({"settings": 3})):
        Path(tmp_path / "training.json").write_text(text)
        assert recorded(tmp_path) == {}
