"""The final training's loop: a batch split over passes or processes gives the whole batch's gradients."""

from dataclasses import replace

import peft
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from allocsearch import spec as specs
from allocsearch.core.geometry import Routing
from allocsearch.models import load_base
from allocsearch.training import checkpoint
from allocsearch.training.adapter import adapter_config
from allocsearch.training.objective import Objective
from allocsearch.training.tasks import load_task
from allocsearch.tuning.finetuning import checkpoint_activations
from allocsearch.tuning.loop import Checkpoints, Trainer
from allocsearch.tuning.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def trainer(tmp_path, write_study):
    """Makes a trainer on sixteen rows, half of which have answers of two tokens."""
    task = load_task(specs.load(str(write_study(tmp_path / "study.yaml"))).task.source())

    def make(*, aux_weight=0.0, **changes):
        base = load_base(specs.load(str(tmp_path / "study.yaml")).model, dtype="float32")
        if changes.get("gradient_checkpointing"):
            checkpoint_activations(base.model)
        model = peft.get_peft_model(base.model, adapter_config("3x2*4", Routing(), alpha="2r", aux_loss_weight=aux_weight))
        with torch.no_grad():  # B starts at zero, which would hide the gradients of A
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.05)
        settings = Settings(**{**BASIC, **changes})
        objective = Objective(base.tokenizer, base.head, task.metric, 64, 8)
        encoded = objective.encode(task.train[:16])
        encoded = [replace(one, completions=tuple((*ids, 2) for ids in one.completions)) if i % 2 else one for i, one in enumerate(encoded)]
        return Trainer(Accelerator(cpu=True), model, objective, encoded, settings, aux_weight)

    return make


BASIC = {
    "epochs": 1.0,
    "batch_size": 8,
    "gradient_accumulation": 1,
    "learning_rate": 0.01,
    "max_tokens": 64,
    "gradient_checkpointing": False,
    "dtype": "float32",
    "seed": 0,
}


def gradients(trainer):
    trainer.model.train()
    loss = trainer._backward(trainer.model, list(trainer.encoded[:8]))
    return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-3, atol=1e-6)


def test_accumulation_gives_the_whole_batchs_gradients(trainer):
    loss, whole = gradients(trainer())
    again, parts = gradients(trainer(gradient_accumulation=4))
    assert again == pytest.approx(loss, rel=1e-5)
    assert_close(parts, whole)
    assert max(grad.abs().max() for grad in whole.values()) > 1e-3


def test_accumulation_counts_the_balance_loss_once(trainer):
    def pull(accumulation):
        """The gradients, in which the balance loss with its weight dwarfs the task's."""
        _, found = gradients(trainer(aux_weight=1000.0, gradient_accumulation=accumulation))
        return torch.cat([grad.flatten() for grad in found.values()])

    once, parts = pull(1), pull(2)
    assert parts.norm() / once.norm() == pytest.approx(1.0, abs=0.3), "neither doubled nor halved"
    assert torch.nn.functional.cosine_similarity(once, parts, dim=0) > 0.8


def test_gradient_checkpointing_changes_no_gradient(trainer):
    loss, plain = gradients(trainer(aux_weight=0.1))
    again, checkpointed = gradients(trainer(aux_weight=0.1, gradient_checkpointing=True))
    assert again == pytest.approx(loss, rel=1e-6)
    assert_close(checkpointed, plain)


def test_a_run_cut_in_two_is_one_run(trainer, tmp_path):
    def run(place, *, resume, stop=None):
        found = trainer(epochs=3, aux_weight=0.01)

        def report(at):
            if at.step == stop:
                raise KeyboardInterrupt

        stored = checkpoint.load(place) if resume else None
        found.train(Checkpoints(place, 2, {}), stored=stored, report=report)
        assert stored is None or not stored.tensors, "they are as large as what is trained, three times"
        return load_file(place)

    whole = run(tmp_path / "whole", resume=False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", resume=False, stop=3)
    again = run(tmp_path / "cut", resume=True)
    assert any(name.startswith("exp_avg_sq/") for name in whole)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
