"""Every router and kind on a GPU: the CPU's output and gradients, in float32 and bfloat16, through saving."""

import peft
import pytest
import torch

from allocsearch.moelora import balance_loss
from tests.moelora.conftest import batch, build, logits, shake

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def gradients(model, device):
    inputs = {name: value.to(device) for name, value in batch().items()}
    model.train()(**inputs).loss.backward()
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters() if parameter.grad is not None}


def on_cuda(model, **changes):
    with torch.no_grad():
        return model.eval()(**{name: value.cuda() for name, value in batch().items() if name != "labels"}, **changes).logits.cpu()


def test_as_on_a_cpu(config, tmp_path):
    model = shake(peft.get_peft_model(build("llama"), config))
    expected, grads = logits(model), gradients(model, "cpu")
    model.save_pretrained(tmp_path)
    model.zero_grad()
    model.cuda()
    torch.testing.assert_close(on_cuda(model), expected, rtol=1e-3, atol=1e-4)
    found = gradients(model, "cuda")
    assert found.keys() == grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-3, atol=1e-4)
    if config.balances and "x" in config.allocation:
        assert torch.isfinite(balance_loss(model))
    loaded = peft.PeftModel.from_pretrained(build("llama").cuda(), tmp_path)
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cuda"}
    torch.testing.assert_close(on_cuda(loaded), expected, rtol=1e-3, atol=1e-4)


def test_in_bfloat16_with_checkpointing(config):
    model = shake(peft.get_peft_model(build("llama").bfloat16().cuda(), config), scale=0.05)
    model.base_model.model.activation_checkpointing_enable({"use_reentrant": False})
    found = gradients(model, "cuda")
    assert found
    assert all(torch.isfinite(grad).all() for grad in found.values())


def test_generates(config):
    model = shake(peft.get_peft_model(build("llama").cuda(), config)).eval()
    ids = batch()["input_ids"][:2, :4].cuda()
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, use_cache=True, **settings), model.generate(ids, use_cache=False, **settings))
