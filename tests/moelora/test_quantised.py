"""A base in int8 is a black box: adapters train on it in float32, and it comes back as it was."""

import peft
import pytest
import torch
from torch import nn

from allocsearch.moelora import MoeLoraConfig
from tests.moelora.conftest import batch, build, shake

# Not among the development packages: where it is installed, every process that imports transformers prints its warnings.
quantization = pytest.importorskip("torchao.quantization", reason="needs torchao: pip install torchao")


@pytest.mark.parametrize("settings", [{"allocation": "3x2 4+2"}, {"allocation": "q:2,down:2,parallel:2,prompt:2*2", "router": "sigmoid"}])
def test_torchao_int8(settings, tmp_path):
    base = build("llama")
    exact = base(**batch()).logits
    quantization.quantize_(
        base, quantization.Int8WeightOnlyConfig(), filter_fn=lambda module, name: isinstance(module, nn.Linear) and "lm_head" not in name
    )
    before = base(**batch()).logits
    assert 0 < (before - exact).abs().max() < 0.05
    model = shake(peft.get_peft_model(base, MoeLoraConfig(**settings))).train()
    model(**batch()).loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 and p.grad is not None for p in trained.values())
    model.save_pretrained(tmp_path)
    expected = model.eval()(**batch()).logits
    base = model.unload()
    assert torch.equal(base.eval()(**batch()).logits, before)
    torch.testing.assert_close(peft.PeftModel.from_pretrained(base, tmp_path).eval()(**batch()).logits, expected)
