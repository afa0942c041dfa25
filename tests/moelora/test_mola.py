"""A folder as MoLA's code writes it, read back: outputs by MoLA's formula."""

import json

import pytest
import torch

from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraLinear
from allocsearch.moelora.mola import load_mola
from tests.moelora.conftest import batch, build
from tests.moelora.reference import mola_linear

COUNTS, RANKS = (3, 1), (4, 2)
LINEARS = {"self_attn.q_proj": (16, 16), "self_attn.v_proj": (16, 8), "mlp.down_proj": (24, 16)}


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer, (count, rank) in enumerate(zip(COUNTS, RANKS, strict=True)):
        for path, (d_in, d_out) in LINEARS.items():
            prefix = f"base_model.model.model.layers.{layer}.{path}"
            for i in range(count):
                tensors[f"{prefix}.lora_A_{i}.weight"] = torch.randn(rank, d_in, generator=generator)
                tensors[f"{prefix}.lora_B_{i}.weight"] = torch.randn(d_out, rank, generator=generator)
            tensors[f"{prefix}.router.router.weight"] = torch.randn(count, d_in, generator=generator)
    torch.save(tensors, tmp_path / "adapter_model.bin")
    config = {"r": list(RANKS), "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": [path.split(".")[1] for path in LINEARS]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path, tensors


def test_outputs_follow_their_formula(folder):
    where, tensors = folder
    model = load_mola(build("llama"), where, top_k=[2, 1])
    assert model.peft_config["default"].allocation == "q:3x4,v:3x4,down:3x4 q:2,v:2,down:2"
    assert not any(p.requires_grad for p in model.parameters())
    checked = 0
    for name, module in model.named_modules():
        if isinstance(module, MoeLoraLinear):
            layer = module.placements["default"].layer
            experts = [(tensors[f"{name}.lora_A_{i}.weight"], tensors[f"{name}.lora_B_{i}.weight"]) for i in range(COUNTS[layer])]
            router = tensors[f"{name}.router.router.weight"] if COUNTS[layer] > 1 else None
            x = torch.randn(5, module.in_features)
            expected = mola_linear(
                x, module.base_layer.weight, None, experts, router, scalings=[16 / RANKS[layer]] * COUNTS[layer], top_k=(2, 1)[layer]
            )
            torch.testing.assert_close(module.eval()(x), expected, rtol=1e-4, atol=1e-4)
            checked += 1
    assert checked == 6


def test_it_can_be_trained_and_saved_as_ours(folder, tmp_path):
    model = load_mola(build("llama"), folder[0], top_k=2, is_trainable=True)
    model.train()(**batch()).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path / "ours")
    assert (tmp_path / "ours" / "adapter_model.safetensors").is_file()


def test_errors_say_what_must_hold(folder, tmp_path):
    where, _ = folder
    with pytest.raises(InputError, match=r"must have an adapter_config\.json"):
        load_mola(build("llama"), tmp_path / "none", top_k=2)
    with pytest.raises(InputError, match="not among its 1 layers"):
        load_mola(build("llama", num_layers=1), where, top_k=2)
    torch.save({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 2)}, where / "adapter_model.bin")
    with pytest.raises(InputError, match="must be lora_A_i"):
        load_mola(build("llama"), where, top_k=2)
    (where / "adapter_model.bin").unlink()
    with pytest.raises(InputError, match=r"must have adapter_model\.bin"):
        load_mola(build("llama"), where, top_k=2)
