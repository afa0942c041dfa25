"""One-shot scores: the proxy's own result where there is nothing to share, inside the budget, repeatable, and without traces."""

import dataclasses

import pytest
import torch

from allocsearch import spec as specs
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import Budget, cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment
from allocsearch.models import model_shape
from allocsearch.scores import oneshot, starts
from allocsearch.scores.starts import ScoredStart, one_shot_scores, scored_starts
from allocsearch.training.finetune import ProxyEvaluator

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROXY = {"train_rows": 16, "search_rows": 16, "batch_size": 8, "dtype": "float32", "learning_rate": 0.02}


@pytest.fixture
def study(tmp_path, write_study):
    """Makes the spec of a study on the tiny model."""

    def make(**overrides):
        return specs.load(str(write_study(tmp_path / "study.yaml", **{"proxy": PROXY, **overrides})))

    return make


@pytest.fixture
def probe(study, tiny_model):
    return starts._probe(study(), {"practice"}, model=str(tiny_model), shape=model_shape(tiny_model))


def parsed(*texts):
    return [Allocation.parse(text) for text in texts]


@pytest.mark.parametrize(("text", "alpha"), [("3x4*4", "2r"), ("3+2 0 attn:2,ffn:2x3 1", 8)])
def test_alone_an_allocation_scores_what_its_own_training_of_that_length_gives(study, tiny_model, text, alpha):
    proxy = {**PROXY, "alpha": alpha}
    found = one_shot_scores(parsed(text), study(proxy=proxy), model=str(tiny_model), shape=model_shape(tiny_model))
    longer = study(proxy={**proxy, "epochs": float(oneshot.STEPS_FACTOR)})
    outcome = ProxyEvaluator(longer, longer.model)(Assignment(0, Allocation.parse(text), Routing(), (0,), ()), lambda _: True)
    assert found[0] == pytest.approx(-outcome.nll, rel=1e-5)


def test_a_frozen_allocation_scores_what_the_base_does(probe, study):
    frozen, _ = oneshot.scores(probe, parsed("0*4", "2x2*4"))
    spec = study()
    assignment = Assignment(0, Allocation.parse("1*4"), Routing(), (0,), (), score_base=True)
    assert frozen == pytest.approx(-ProxyEvaluator(spec, spec.model)(assignment, lambda _: True).base.mean_nll, rel=1e-5)


def test_scores_repeat_and_leave_the_model_as_it_was(probe):
    before = {name: value.clone() for name, value in probe.model.state_dict().items()}
    pool = parsed("3x4*4", "1*4", "2x2 0 8 1")
    first = oneshot.scores(probe, pool)
    assert oneshot.scores(probe, pool) == first
    assert len(set(first)) == 3
    after = probe.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in probe.model.parameters())


def test_the_seed_decides(study, tiny_model):
    shape, pool = model_shape(tiny_model), parsed("3x4*4", "1*4")
    one, other = (one_shot_scores(pool, study(proxy={**PROXY, "seeds": [s]}), model=str(tiny_model), shape=shape) for s in (0, 1))
    assert one != other


def test_a_start_uses_the_budget_up_and_is_of_the_space(study, tiny_model, monkeypatch):
    monkeypatch.setattr(oneshot, "NUM_CANDIDATES", 6)
    spec, shape, budget = study(warm_starts=["one-shot"]), model_shape(tiny_model), Budget(20_000)
    (found,) = scored_starts(("one-shot",), spec, model=str(tiny_model), shape=shape, budget=budget)
    space = spec.space.template().bind(shape, Routing())
    assert space.expresses(found.allocation)
    assert space.project(found.allocation, budget) == found.allocation, "something still fits"
    assert not budget.excess(cost(found.allocation, shape))
    assert found.seconds > 0
    assert ScoredStart.from_json(found.to_json()) == found


def test_the_best_of_the_candidates_is_the_start(probe, monkeypatch):
    monkeypatch.setattr(oneshot, "NUM_CANDIDATES", 5)
    allocation, score = oneshot.start(probe, Budget(20_000))
    points = probe.practice.space.samples(Budget(20_000), 5, key="0/one-shot")
    candidates = [probe.practice.space.decode(point) for point in points]
    scores = oneshot.scores(probe, candidates)
    assert score == (max(scores),)
    assert allocation == candidates[scores.index(max(scores))]


def test_a_budget_without_room_gives_no_start(probe):
    space = specs.load_space("uniform").template().bind(probe.shape, Routing())
    small = dataclasses.replace(probe, practice=dataclasses.replace(probe.practice, space=space))
    assert oneshot.start(small, Budget(10)) == (None, ())


def test_what_cannot_be_scored_is_refused(probe):
    with pytest.raises(InputError, match="no practice"):
        oneshot.scores(dataclasses.replace(probe, practice=None), parsed("1*4"))
    with pytest.raises(InputError, match="an expert"):
        oneshot.scores(probe, parsed("0*4"))
    with pytest.raises(InputError, match="router per linear"):
        oneshot.scores(dataclasses.replace(probe, routing=Routing(router="sigmoid")), parsed("q:1*4"))
