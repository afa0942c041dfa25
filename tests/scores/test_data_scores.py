"""Scores that run the model: against the same quantity by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.models import shape_of
from allocsearch.scores import complexity, eva, gradient
from allocsearch.scores.eva import Spectrum
from allocsearch.scores.probe import Probe, real_tokens
from allocsearch.training.likelihood import completion_loss
from tests.scores.conftest import batches, llama


def state(model):
    return {name: (parameter.clone(), parameter.requires_grad, parameter.grad) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("score", [gradient.scores, eva.scores, complexity.scores])
def test_scores_leave_the_model_as_it_was(probe, score):
    before = state(probe.model)
    first, again = score(probe), score(probe)
    assert first == pytest.approx(again)
    assert len(first) == 3
    assert all(math.isfinite(value) and value > 0 for value in first)
    for name, (value, required, grad) in state(probe.model).items():
        assert torch.equal(value, before[name][0])
        assert (required, grad) == before[name][1:]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in probe.model.modules())


@pytest.mark.parametrize("score", [gradient.scores, eva.scores, complexity.scores])
def test_scores_that_need_data_say_so(probe, score):
    with pytest.raises(InputError, match="at least one batch"):
        score(Probe(probe.model, probe.shape, probe.routing))


def test_gradients_are_autograds(probe):
    """One linear at a time, and the loss by hand."""
    found = gradient.scores(Probe(probe.model, probe.shape, Routing(targets=("up",)), probe.batches))
    for layer in range(3):
        weight = probe.model.get_submodule(f"model.layers.{layer}.mlp.up_proj").weight.requires_grad_()
        norms = []
        for batch in probe.batches:
            logits = probe.model(**batch.inputs).logits[:, -1].log_softmax(dim=-1)
            loss = -logits[torch.arange(len(logits)), batch.target_ids[:, -1]].mean()
            assert loss.item() == pytest.approx(completion_loss(batch, probe.model(**batch.inputs).logits).item(), rel=1e-5)
            norms.append(torch.autograd.grad(loss, weight)[0].square().sum().item())
        weight.requires_grad_(requires_grad=False)
        assert found[layer] == pytest.approx(sum(norms) / len(norms), rel=1e-4)


def test_a_layers_gradients_add_up_over_its_linears(probe):
    def of(*targets):
        return gradient.scores(Probe(probe.model, probe.shape, Routing(targets=targets), probe.batches))

    parts = [of(name) for name in probe.shape.targets]
    assert of("attn", "ffn") == pytest.approx([sum(column) for column in zip(*parts, strict=True)], rel=1e-5)


@pytest.mark.parametrize("rows", [[30], [12, 9, 9], [1, 29]])
def test_a_spectrum_is_numpys(rows):
    """With as many components as the matrix has, nothing is lost between parts."""
    data = np.random.default_rng(0).normal(size=(30, 6)) * [5, 3, 2, 1, 0.5, 0.1] + 4
    spectrum = Spectrum(6)
    for part in np.split(data, np.cumsum(rows)[:-1]):
        spectrum.update(torch.tensor(part))
    singular = np.linalg.svd(data - data.mean(axis=0), compute_uv=False)
    assert spectrum.ratios == pytest.approx(singular**2 / (singular**2).sum())


def test_a_spectrum_keeps_the_largest_components_and_the_whole_variance():
    data = np.random.default_rng(1).normal(size=(64, 20)) @ np.diag(0.5 ** np.arange(20))
    spectrum = Spectrum(4)
    for part in np.split(data, 4):
        spectrum.update(torch.tensor(part))
    singular = np.linalg.svd(data - data.mean(axis=0), compute_uv=False)
    assert spectrum.ratios == pytest.approx((singular**2 / (singular**2).sum())[:4], rel=1e-2)


def test_a_constant_input_has_no_directions():
    spectrum = Spectrum(3)
    spectrum.update(torch.ones(5, 4))
    assert spectrum.ratios == []


def test_inputs_are_those_of_each_linear_without_padding(probe):
    inputs = {}
    for layer in range(3):
        for site in probe.shape.layers[layer]:
            linear = probe.model.get_submodule(f"model.layers.{layer}.{site.path}")
            linear.register_forward_pre_hook(lambda _, args, key=(layer, site.name): inputs.setdefault(key, []).append(args[0]))
    found = eva.spectra(probe)
    for (layer, name), hidden in inputs.items():
        place = [site.name for site in probe.shape.layers[layer]].index(name)
        rows = np.concatenate([real_tokens(x, batch).numpy() for x, batch in zip(hidden, probe.batches, strict=True)])
        singular = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[:16]
        expected = singular**2 / ((rows - rows.mean(axis=0)) ** 2).sum()
        error = 5e-3 if name == "down" else 1e-6  # its input is wider than the components that are kept from batch to batch
        assert found[layer][place].ratios == pytest.approx(expected, rel=1e-3, abs=error), (layer, name)
    assert found[0][0] is found[0][1] is found[0][2], "q, k and v read one tensor"


def test_eva_gives_rank_where_inputs_vary(probe):
    """A block whose inputs lie in one direction explains all with one component; the others share the rest."""
    assert sum(eva.scores(probe)) == pytest.approx(3 * 8), "the mean rank is kept"
    flat = llama()
    with torch.no_grad():
        norm = flat.model.layers[1].input_layernorm.weight
        norm.mul_(torch.eye(16)[0])
        flat.model.layers[1].post_attention_layernorm.weight.mul_(torch.eye(16)[0])
    found = eva.scores(Probe(flat, shape_of(flat), Routing(targets=("q", "up")), batches()))
    assert found[1] < min(found[0], found[2])


class Identity(nn.Module):
    def forward(self, hidden_states, **_):
        return hidden_states


def test_a_block_that_passes_its_input_on_is_not_complex(probe):
    probe.model.model.layers[1] = Identity()
    found = complexity.scores(probe)
    assert found[1] == 0
    assert found[0] > 0
    assert found[2] > 0


def test_complexity_is_the_angle_between_hidden_states(probe):
    angles, tokens = np.zeros(3), 0
    for batch in probe.batches:
        with torch.no_grad():
            states = probe.model(**batch.inputs, output_hidden_states=True).hidden_states
        mask = batch.attention_mask.bool()
        tokens += int(mask.sum())
        for layer in range(2):  # transformers normalises the last one
            cosine = torch.cosine_similarity(states[layer][mask].double(), states[layer + 1][mask].double(), dim=-1)
            angles[layer] += torch.arccos(cosine).sum().item() / math.pi
    assert complexity.scores(probe)[:2] == pytest.approx(angles[:2] / tokens, rel=1e-4)


def test_angles_are_exact_where_arccos_is_not():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    y = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1e-9]], dtype=torch.float64)
    assert complexity.angles(x, y).tolist() == pytest.approx([0, 0.5, 1, 1e-9 / math.pi], rel=1e-6)
