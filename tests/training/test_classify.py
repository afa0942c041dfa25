"""Encoders: a classification head that is trained with the experts, equal for all allocations and left out of their cost."""

import json
from dataclasses import replace

import pytest
import torch

from allocsearch import spec as specs
from allocsearch.backends.artifacts import FolderArtifacts
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Measured
from allocsearch.models import head_of, load_base, model_shape
from allocsearch.planning import plan
from allocsearch.training import proxy
from allocsearch.training.bench import bench_of
from allocsearch.training.classify import encode_texts, score_classes
from allocsearch.training.finetune import ProxyEvaluator
from tests.conftest import WORDS

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ALLOCATION = "2x4 8 0"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """Folder of a random BERT of three layers, with dropout, and a word-level tokenizer; as published, without a head."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder") / "model"
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=32,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def write(tiny_encoder, write_study, tmp_path):
    """Writes a study on the encoder; keyword arguments override top-level keys."""

    def written(**overrides):
        proxy = {"train_rows": 32, "search_rows": 24, "test_rows": 16, "batch_size": 8, "dtype": "float32", "learning_rate": 0.01}
        return write_study(tmp_path / "study.yaml", **{"model": str(tiny_encoder), "proxy": proxy, **overrides})

    return written


@pytest.fixture
def evaluator(write, tmp_path):
    def make(**overrides):
        spec = specs.load(str(write(**overrides)))
        return ProxyEvaluator(spec, spec.model, FolderArtifacts(tmp_path), prefix="t")

    return make


def assignment(text=ALLOCATION, *, seeds=(0,), **options):
    return Assignment(0, Allocation.parse(text), Routing(), seeds, **options)


def go_on(_rung):
    return True


def test_a_trial_runs_and_a_seed_decides_everything(evaluator):
    run = evaluator()
    first, again, other = (run(assignment(seeds=(seed,)), go_on) for seed in (0, 0, 1))
    assert isinstance(first, Measured)
    assert first.scores == again.scores
    assert first.nll != other.nll
    assert len(first.scores[0].correct) == 24


def test_rungs_do_not_disturb_the_training(evaluator):
    run = evaluator()
    with_rungs = run(assignment(rungs=(1, 3)), go_on)
    assert [rung.step for rung in with_rungs.rungs] == [1, 3]
    assert with_rungs.scores == run(assignment(), go_on).scores


def test_the_base_comes_back_untouched_and_frozen(evaluator):
    run = evaluator()
    run(assignment(score_base=True), go_on)
    bench = bench_of(run.spec, run.model)
    before = {name: tensor.clone() for name, tensor in bench.model.state_dict().items() if not name.startswith("classifier")}
    run(assignment("8 2x2 4"), go_on)
    after = bench.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in bench.model.parameters())
    assert not any(module.__class__.__module__.startswith(("allocsearch", "peft")) for module in bench.model.modules())
    assert not bench.model.bert.pooler._forward_hooks


def test_all_allocations_start_from_the_seeds_head_and_no_other_matters(evaluator):
    run = evaluator()
    bench = bench_of(run.spec, run.model)
    heads = []
    for text, seed in ((ALLOCATION, 0), ("0 0 1", 0), (ALLOCATION, 1)):
        with proxy.Adapted(bench, assignment(text), seed) as adapted:
            heads.append({name: value.clone() for name, value in adapted.model.named_parameters() if "modules_to_save" in name})
            if text == ALLOCATION:
                adapted.train(go_on)
    first, same, other = heads
    assert first.keys() == same.keys() == other.keys() != set()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_cost_leaves_the_head_out(evaluator, tiny_encoder):
    run = evaluator()
    bench = bench_of(run.spec, run.model)
    with proxy.Adapted(bench, assignment(), 0) as adapted:
        trained = {name: parameter.numel() for name, parameter in adapted.model.named_parameters() if parameter.requires_grad}
    head = sum(count for name, count in trained.items() if "classifier" in name)
    assert head == 32 * 2 + 2
    assert sum(trained.values()) - head == cost(Allocation.parse(ALLOCATION), model_shape(tiny_encoder)).trainable


def test_the_frozen_base_is_the_head_trained_alone(evaluator):
    run = evaluator()
    outcome = run(assignment(score_base=True), go_on)
    bench = bench_of(run.spec, run.model)
    rows = bench.train_encoded(0)
    assert outcome.base.nll != outcome.scores[0].nll
    with proxy.HeadAlone(bench, 0, split="search") as alone:
        untrained = alone.score()
        losses = [bench.loss(alone.model, rows).item()]
        alone.train(go_on)
        losses.append(bench.loss(alone.model, rows).item())
        assert alone.score() == outcome.base != untrained
    assert losses[1] < losses[0]


def test_new_experts_add_nothing_to_the_head(evaluator):
    run = evaluator()
    bench = bench_of(run.spec, run.model)
    with proxy.Adapted(bench, assignment(), 0) as adapted:
        first = adapted.score()
    with proxy.HeadAlone(bench, 0, split="search") as alone:
        assert alone.score().nll == pytest.approx(first.nll, abs=1e-6)


def test_a_row_scores_the_same_alone_and_in_a_batch(evaluator):
    run = evaluator()
    bench = bench_of(run.spec, run.model)
    encoded = [replace(row, prompt=row.prompt[: 3 + number]) for number, row in enumerate(bench.train_encoded(0)[:9])]
    with proxy.Adapted(bench, assignment(), 0) as adapted:
        adapted.train(go_on)
        together = score_classes(adapted.model, encoded, pad_id=0, seed=0)
        alone = [score_classes(adapted.model, [row], pad_id=0, seed=0) for row in encoded]
    assert together.nll == pytest.approx([score.nll[0] for score in alone], abs=1e-5)
    assert together.correct == tuple(score.correct[0] for score in alone)
    assert len({len(row.prompt) for row in encoded}) > 1


def test_a_long_text_keeps_its_start_and_its_special_tokens(tiny_encoder, evaluator):
    run = evaluator()
    bench = bench_of(run.spec, run.model)
    (cut,) = encode_texts(bench.task.search[:1], bench.tokenizer, max_tokens=5)
    (whole,) = encode_texts(bench.task.search[:1], bench.tokenizer, max_tokens=10_000)
    assert (cut.prompt[0], cut.prompt[-1]) == (2, 3)
    assert cut.prompt[:4] == whole.prompt[:4]
    assert len(cut.prompt) == 5


def test_bfloat16_trains_its_head_in_float32(evaluator):
    run = evaluator(proxy={"train_rows": 16, "search_rows": 8, "batch_size": 8, "dtype": "bfloat16"})
    assert isinstance(run(assignment(), go_on), Measured)
    bench = bench_of(run.spec, run.model)
    assert {parameter.dtype for parameter in bench.model.classifier.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in bench.model.bert.parameters()} == {torch.bfloat16}


def test_dropout_is_off(tiny_encoder):
    model, _ = load_base(tiny_encoder, num_classes=2)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_an_encoder_without_all_its_weights_is_refused(tiny_encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in tiny_encoder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["pooler.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"must hold all of the encoder, but lack bert\.pooler\.dense\.weight"):
        load_base(tmp_path, num_classes=2)


def test_a_head_is_known_from_the_config(tiny_encoder, tiny_model):
    assert (head_of(tiny_encoder).modules, head_of(tiny_encoder).pooling) == (("classifier",), "mean")
    assert (head_of(tiny_model).modules, head_of(tiny_model).pooling) == ((), "first")


HEADS = {
    "bert": ({"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}, ("classifier",), "mean"),
    "roberta": ({"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}, ("classifier",), "first"),
    "distilbert": ({"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}, ("pre_classifier", "classifier"), "first"),
}


@pytest.mark.parametrize("family", HEADS)
def test_every_family_trains_its_own_head_and_nothing_else(family):
    import peft
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from allocsearch.training.adapter import adapter_config
    from allocsearch.training.classify import class_losses, draw_head
    from allocsearch.training.collate import EncodedExample

    sizes, modules, pooling = HEADS[family]
    config = AutoConfig.for_model(family, **sizes, vocab_size=50, num_labels=3, max_position_embeddings=40)
    head = head_of(config)
    assert (head.modules, head.pooling) == (modules, pooling)
    base = AutoModelForSequenceClassification.from_config(config)
    draw_head(base, head.modules, seed=0)
    model = peft.get_peft_model(base, adapter_config("2x2 4", Routing(), alpha="2r", aux_loss_weight=0.0, head=head))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    in_head = {name for name in trained if any(f".{module}.modules_to_save." in name for module in modules)}
    assert sum(trained[name].numel() for name in trained.keys() - in_head) == cost(Allocation.parse("2x2 4"), model_shape(config)).trainable
    rows = [EncodedExample((5, 6, 7), ((),) * 3, 2), EncodedExample((8, 9), ((),) * 3, 0)]
    class_losses(model, rows, pad_id=1 if family == "roberta" else 0).mean().backward()
    assert all(trained[name].grad is not None for name in in_head)


def test_tasks_without_fixed_choices_are_refused_before_anything_runs(write, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "a", "answer": "b", "options": ["x", "y"], "label": 0}), encoding="utf-8")
    common = {"name": "t", "path": str(rows), "template": "{text}"}
    for task, what in (
        ({"answer_column": "answer"}, "text to generate"),
        ({"choices_column": "options", "label_column": "label"}, "own in each row"),
    ):
        with pytest.raises(InputError, match=f"same choices in every row, but .* {what}") as caught:
            plan(specs.load(str(write(task={**common, **task}))))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"a warm start by score needs a causal language model.*leave out eva"):
        plan(specs.load(str(write(warm_starts=["uniform", "eva"]))))


def test_a_search_exports_a_folder_that_peft_loads_with_its_head(write, tmp_path, monkeypatch):
    from peft import AutoPeftModelForSequenceClassification
    from typer.testing import CliRunner

    from allocsearch.cli import app

    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path / "home"))
    study = write(trials=2, warm_starts=["lora"])
    runner = CliRunner()
    for command in (["run", str(study), "--inline"], ["export", "tiny", "--format", "peft", "-o", str(tmp_path / "best")]):
        done = runner.invoke(app, command)
        assert done.exit_code == 0, done.output
    refused = runner.invoke(app, ["export", "tiny", "--format", "lora", "-o", str(tmp_path / "lora")])
    assert isinstance(refused.exception, InputError)
    assert "use --format peft" in str(refused.exception)

    from allocsearch.backends.catalog import Catalog
    from allocsearch.search import results

    record = Catalog(None).record("tiny")
    best = results.picked(record.trials, "best").measured.scores[0]
    bench = bench_of(record.spec, record.spec.model)
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "best", num_labels=2)
    again = score_classes(loaded, encode_texts(bench.task.search[:24], bench.tokenizer, max_tokens=256), pad_id=0, seed=0)
    assert again.correct == best.correct
    assert again.nll == pytest.approx(best.nll, abs=1e-5)
