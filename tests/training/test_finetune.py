"""The proxy on the tiny model: what it shares between allocations, what it repeats, and every way that it ends."""

import pytest
import torch

from allocsearch import spec as specs
from allocsearch.backends.artifacts import FolderArtifacts
from allocsearch.core.allocation import Allocation
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed, Measured, Stopped
from allocsearch.training import objective, proxy
from allocsearch.training.bench import bench_of
from allocsearch.training.collate import encode
from allocsearch.training.evaluate import score
from allocsearch.training.examples import Example
from allocsearch.training.finetune import ProxyEvaluator

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def evaluator(tmp_path, write_study):
    """Makes an evaluator for a study on the tiny model."""

    def make(**overrides):
        spec = specs.load(str(write_study(tmp_path / "study.yaml", **overrides)))
        return ProxyEvaluator(spec, spec.model, FolderArtifacts(tmp_path), prefix="t")

    return make


def assignment(text="2x4*4", *, number=0, seeds=(0,), rungs=(), **options):
    return Assignment(number, Allocation.parse(text), Routing(), seeds, rungs, **options)


def go_on(_rung):
    return True


def test_a_seed_decides_everything(evaluator):
    run = evaluator()
    first, again, other = (run(assignment(seeds=(seed,)), go_on) for seed in (0, 0, 1))
    assert first.scores == again.scores
    assert first.nll != other.nll


def test_several_seeds_are_scored_on_the_same_rows(evaluator):
    outcome = evaluator()(assignment(seeds=(0, 1)), go_on)
    assert isinstance(outcome, Measured)
    assert [score.seed for score in outcome.scores] == [0, 1]
    assert {len(score.correct) for score in outcome.scores} == {24}
    alone = evaluator()(assignment(seeds=(1,)), go_on)
    assert alone.scores[0] == outcome.scores[1], "a seed's result depends on the seeds before it"


def test_tokens_are_those_trained_on(evaluator):
    run = evaluator()
    whole, stopped = run(assignment(seeds=(0, 1)), go_on), run(assignment(rungs=(2,)), lambda _rung: False)
    rows = [row for seed in (0, 1) for row in bench_of(run.spec, run.model).train_encoded(seed)]
    assert whole.tokens == sum(len(row.prompt) + len(row.completions[row.gold]) for row in rows)
    assert 0 < stopped.tokens < whole.tokens / 2


def test_the_base_comes_back_untouched(evaluator):
    run = evaluator()
    run(assignment(), go_on)
    bench = bench_of(run.spec, run.model)
    before = {name: tensor.clone() for name, tensor in bench.model.state_dict().items()}
    run(assignment("4x8 0 1 attn:2x2,ffn:8"), go_on)
    after = bench.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.__class__.__module__.startswith("allocsearch") for module in bench.model.modules())


def test_new_experts_change_nothing_so_the_base_scores_what_step_zero_would(evaluator):
    outcome = evaluator()(assignment(score_base=True), go_on)
    assert outcome.base is not None
    assert outcome.base.nll != outcome.scores[0].nll
    run = evaluator()
    bench = bench_of(run.spec, run.model)
    with proxy.Adapted(bench, assignment(), seed=0) as adapted:
        assert adapted.score() == outcome.base


def test_training_lowers_the_loss_on_its_own_rows(evaluator):
    run = evaluator(proxy={"train_rows": 64, "search_rows": 24, "batch_size": 8, "epochs": 8, "dtype": "float32", "learning_rate": 0.01})
    outcome = run(assignment(score_base=True), go_on)
    bench = bench_of(run.spec, run.model)
    assert outcome.nll < bench.base_score("search").mean_nll


def test_two_allocations_share_data_order_and_evaluation_rows(evaluator, monkeypatch):
    run = evaluator()
    seen = []
    original = objective.collate
    monkeypatch.setattr(objective, "collate", lambda rows, **options: seen.append(rows) or original(rows, **options))
    run(assignment("2x4*4"), go_on)
    first, seen[:] = list(seen), []
    run(assignment("8x1 0*3"), go_on)
    assert seen == first


def test_rungs_are_reported_in_order_and_a_no_ends_the_trial(evaluator):
    run = evaluator()
    outcome = run(assignment(rungs=(1, 3)), go_on)
    assert isinstance(outcome, Measured)
    assert [rung.step for rung in outcome.rungs] == [1, 3]
    unbothered = run(assignment(), go_on)
    assert unbothered.scores == outcome.scores, "scoring at a rung changed the training"
    stopped = run(assignment(rungs=(1, 3)), lambda rung: rung.step < 3)
    assert isinstance(stopped, Stopped)
    assert [rung.step for rung in stopped.rungs] == [1, 3]


def test_a_loss_that_is_not_finite_is_an_outcome_with_its_step(evaluator, monkeypatch):
    steps = iter([1.0, float("inf")])
    original = objective.completion_loss
    monkeypatch.setattr(objective, "completion_loss", lambda *batch: original(*batch) * next(steps))
    outcome = evaluator()(assignment(), go_on)
    assert isinstance(outcome, Failed)
    assert "step 2 of seed 0" in outcome.reason
    monkeypatch.undo()
    assert isinstance(evaluator()(assignment(), go_on), Measured)


def test_a_generated_text_counts_where_it_says_the_answer(evaluator):
    run = evaluator()
    bench = bench_of(run.spec, run.model)
    prompts = ["the film is", "a great plot was good", "bad"]
    inputs = [bench.tokenizer(prompt, return_tensors="pt") for prompt in prompts]
    written = [
        bench.model.generate(**one, max_new_tokens=2, do_sample=False, pad_token_id=0)[0, one["input_ids"].shape[1] :] for one in inputs
    ]
    texts = [bench.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in written]
    right = [Example(prompt, (), text) for prompt, text in zip(prompts, texts, strict=True)]
    wrong = [Example(prompt, (), f"{text} awful awful") for prompt, text in zip(prompts, texts, strict=True)]
    rows = [*right, *wrong]
    encoded = encode(rows, bench.tokenizer, max_tokens=32)
    found = score(bench.model, bench.tokenizer, rows, encoded, metric="exact_match", seed=0, max_new_tokens=2)
    assert found.correct == (True, True, True, False, False, False)
    with torch.inference_mode():
        tokens = torch.tensor([encoded[0].prompt + encoded[0].completions[0]])
        log_probs = bench.model(tokens).logits.log_softmax(-1)
    start = len(encoded[0].prompt)
    by_hand = -sum(log_probs[0, place - 1, tokens[0, place]].item() for place in range(start, tokens.shape[1])) / (tokens.shape[1] - start)
    assert found.nll[0] == pytest.approx(by_hand, rel=1e-4)


def test_weights_are_kept_as_safetensors_under_a_name_that_a_second_attempt_overwrites(evaluator, tmp_path):
    run = evaluator()
    outcome = run(assignment(number=7), go_on)
    assert outcome.artifact == "t-trial-000007.safetensors"
    assert run(assignment(number=7), go_on).artifact == outcome.artifact
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [outcome.artifact]
    assert run(assignment(number=8, keep_weights=False), go_on).artifact is None
