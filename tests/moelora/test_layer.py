"""The stacked layer agrees with MoLA's formula: outputs and every gradient."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraLinear
from allocsearch.moelora.balance import Ledger
from allocsearch.moelora.layer import Placement, linear_features
from allocsearch.moelora.stacked import Fixed, Stack, _composed, _Fused
from tests.moelora.conftest import shake
from tests.moelora.reference import mola_linear


def wrapped(base, ranks, *, top_k=2, router="topk", alpha=16, dropout=0.0):
    stack = Stack(ranks, tuple(alpha / rank for rank in ranks), router=router, top_k=top_k)
    layer = MoeLoraLinear(base.requires_grad_(False), "default", Placement(stack, layer=0, target="q", dropout=dropout), ledger=Ledger())
    return shake(layer)


def gradients(output, wanted):
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return torch.autograd.grad((output * weights).sum() + (output**2).sum(), wanted, retain_graph=True)


ranks_strategy = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(lambda ranks: tuple(sorted(ranks, reverse=True)))


@settings(max_examples=60, deadline=None)
@given(
    ranks=ranks_strategy, top_k=st.integers(1, 6), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(), router=st.sampled_from(["topk", "dense"]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_agrees_with_the_formula_in_float64(*, ranks, top_k, sizes, bias, router, seed):
    torch.manual_seed(seed)
    num_tokens, d_in, d_out = sizes
    layer = wrapped(nn.Linear(d_in, d_out, bias=bias).double(), ranks, top_k=top_k, router=router)
    x = torch.randn(num_tokens, d_in, dtype=torch.float64, requires_grad=True)

    w_in, w_out = layer.moelora_in["default"], layer.moelora_out["default"]
    offsets = [sum(ranks[:i]) for i in range(len(ranks) + 1)]
    experts = [(w_in[a:b], w_out[:, a:b]) for a, b in pairwise(offsets)]
    scalings = [16 / rank for rank in ranks]
    k = len(ranks) if router == "dense" else top_k
    expected = mola_linear(
        x, layer.base_layer.weight, layer.base_layer.bias, experts, w_in[sum(ranks) :] if len(ranks) > 1 else None,
        scalings=scalings, top_k=k,
    )  # fmt: skip
    actual = layer(x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(actual, (x, w_in, w_out)), gradients(expected, (x, w_in, w_out)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("ranks", [(4,), (4, 4, 4), (5, 3, 1)])
def test_bfloat16_stays_within_its_rounding(ranks):
    torch.manual_seed(0)
    base = nn.Linear(32, 24)
    exact = wrapped(nn.Linear(32, 24).double(), ranks)
    exact.base_layer.load_state_dict({name: value.bfloat16().double() for name, value in base.state_dict().items()})
    layer = wrapped(base.bfloat16(), ranks)
    assert layer.moelora_in["default"].dtype == torch.float32
    x = torch.randn(20, 32).bfloat16()
    with torch.no_grad():
        difference = (layer(x).double() - exact(x.double())).abs().max() / exact(x.double()).abs().max()
    assert difference < 2**-7
    assert layer(x).dtype == torch.bfloat16


def test_dropout_hides_inputs_from_experts_but_not_from_the_router():
    layer = wrapped(nn.Linear(6, 5), (2, 2, 2), dropout=0.5).double()
    seen = {}
    layer.moelora_dropout["default"].register_forward_hook(lambda module, args, output: seen.update(dropped=output))
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    actual = layer(x)
    experts, router = layer.expert_tensors("default")
    gates = torch.zeros(7, 3, dtype=torch.float64)
    p = torch.softmax(x @ router.T, dim=1)
    best = p.topk(2)
    gates = gates.scatter(1, best.indices, best.values / best.values.sum(1, keepdim=True))
    expected = layer.base_layer(x) + sum(gates[:, i : i + 1] * 8 * (seen["dropped"] @ a.T @ b.T) for i, (a, b) in enumerate(experts))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(gradients(actual, (x,))[0], gradients(expected, (x,))[0])


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("ranks", [(3,), (3, 3), (4, 2, 1)])
def test_hand_written_backward_equals_autograd(ranks, dropped):
    torch.manual_seed(0)
    stack = Stack(ranks, tuple(8 / rank for rank in ranks))
    routed = len(ranks) > 1
    shapes = [(6, 5), (6, 4), (6, 4), (sum(ranks) + (len(ranks) if routed else 0), 4), (5, sum(ranks))]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    if not dropped:
        tensors[2] = None
    fixed = Fixed(stack, stack.index(), counted=routed, mask=torch.tensor([1.0, 1, 0, 1, 1, 0]))
    results = []
    for function in (_composed, _Fused.apply):
        output, total, _ = function(*tensors, None, fixed)
        loss = (output**3).sum() + (0 if total is None else (total * torch.arange(len(ranks))).sum())
        results.append((output, *torch.autograd.grad(loss, [t for t in tensors if t is not None], materialize_grads=True)))
    for composed, fused in zip(*results, strict=True):
        torch.testing.assert_close(composed, fused, rtol=1e-12, atol=1e-12)


def test_ties_choose_exactly_k():
    layer = wrapped(nn.Linear(4, 3), (2, 2, 2, 2), top_k=2)
    with torch.no_grad():
        layer.expert_tensors("default")[1].zero_()
        for a, b in layer.expert_tensors("default")[0]:
            a.fill_(1.0)
            b.fill_(1.0)
    x = torch.ones(5, 4)
    # Two experts at one half each are one whole expert: 8 · Σ over two ranks of Σ x = 64.
    torch.testing.assert_close(layer(x), layer.base_layer(x) + 64)


def test_saves_no_more_than_inputs_projections_and_gates():
    layer = wrapped(nn.Linear(64, 64), (8, 8, 8, 8))
    saved = []

    def note(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.randn(10, 64, requires_grad=True))
    weights = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    own = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    own = {address: size for address, size in own.items() if address not in weights}
    assert sum(own.values()) == 4 * 10 * (64 + (32 + 4) + 4)


def test_expert_tensors_are_views_in_allocation_order():
    layer = wrapped(nn.Linear(6, 5), (3, 1))
    experts, router = layer.expert_tensors("default")
    assert [(tuple(a.shape), tuple(b.shape)) for a, b in experts] == [((3, 6), (5, 3)), ((1, 6), (5, 1))]
    assert router.shape == (2, 6)
    experts[1][0].fill_(7.0)
    assert (layer.moelora_in["default"][3] == 7).all()
    assert wrapped(nn.Linear(6, 5), (3,)).expert_tensors("default")[1] is None
    with pytest.raises(InputError, match="adapter_name"):
        layer.expert_tensors("other")


def test_gpt2_conv1d_and_black_boxes():
    conv = Conv1D(5, 6)
    layer = wrapped(conv, (2, 1))
    plain = wrapped(nn.Linear(6, 5), (2, 1))
    with torch.no_grad():
        plain.base_layer.weight.copy_(conv.weight.T)
        plain.base_layer.bias.copy_(conv.bias)
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), plain(x))

    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_features, self.out_features = 6, 5
            self.register_buffer("packed", torch.ones(5, 6, dtype=torch.int8))

        def forward(self, x):
            return x.float() @ self.packed.float().T

    x = torch.randn(3, 6).bfloat16()
    assert wrapped(Quantised(), (2, 1))(x).dtype == torch.float32
    with pytest.raises(InputError, match="must be a linear"):
        linear_features(nn.LayerNorm(3))


def test_autocast_runs_products_in_its_type():
    layer = wrapped(nn.Linear(8, 6), (2, 2))
    x = torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert x.grad.dtype == layer.moelora_in["default"].grad.dtype == torch.float32
    torch.testing.assert_close(output.float(), layer(x), rtol=0.03, atol=0.03)


def test_compiles_without_graph_breaks():
    layer = wrapped(nn.Linear(8, 6), (3, 2))
    x = torch.randn(4, 8, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    wanted = (x, *(p for p in layer.parameters() if p.requires_grad))
    torch.testing.assert_close(compiled(x), layer(x))
    for ours, theirs in zip(gradients(compiled(x), wanted), gradients(layer(x), wanted), strict=True):
        torch.testing.assert_close(ours, theirs)
