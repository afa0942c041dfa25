"""A good citizen of PEFT and transformers: save, load, switch, stack, unload."""

import copy
import json
import subprocess
import sys
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file

from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear
from tests.moelora.conftest import FAMILIES, batch, build, shake

ALLOCATION = "2x2 3+1"


def logits(model, **changes):
    model.eval()
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    with torch.no_grad():
        return model(**inputs, **changes).logits


def adapted(base, allocation=ALLOCATION, **settings):
    return shake(peft.get_peft_model(base, MoeLoraConfig(allocation=allocation, **settings)))


@pytest.fixture
def saved(tmp_path):
    """A base model's folder, an adapter's folder, and the logits of both together."""
    base = build("llama")
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    model = adapted(base, task_type="CAUSAL_LM", top_k=[1, 2], lora_alpha="2r")
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "base", tmp_path / "adapter", logits(model)


def test_the_folder_holds_all_that_is_needed_and_no_pickle(saved):
    _, folder, _ = saved
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["allocation"], config["top_k"], config["router"], config["lora_alpha"]) == (ALLOCATION, [1, 2], "topk", "2r")
    assert config["peft_type"] == "MOELORA"
    assert all("moelora_" in name and "default" not in name for name in load_file(folder / "adapter_model.safetensors"))
    assert peft.PeftConfig.from_pretrained(folder).routing.top_k == (1, 2)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_from_pretrained_gives_identical_logits(saved, low_cpu_mem_usage):
    _, folder, expected = saved
    model = peft.PeftModel.from_pretrained(build("llama"), folder, low_cpu_mem_usage=low_cpu_mem_usage)
    # With `low_cpu_mem_usage` parameters lie where the file puts them, and products round by how their operands are aligned.
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-6 if low_cpu_mem_usage else 0)
    assert not any(p.requires_grad for p in model.parameters())


def test_auto_model_gives_identical_logits(saved):
    _, folder, expected = saved
    assert torch.equal(logits(peft.AutoPeftModelForCausalLM.from_pretrained(folder)), expected)


def test_transformers_load_adapter(saved):
    _, folder, expected = saved
    model = build("llama")
    model.load_adapter(str(folder))
    weights = load_file(folder / "adapter_model.safetensors")
    for name, parameter in model.named_parameters():
        if "moelora_" in name:
            assert torch.equal(parameter, weights["base_model.model." + name.removesuffix(".default")])
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-6)
    model.disable_adapters()
    assert torch.equal(logits(model), logits(build("llama")))
    model.enable_adapters()
    model.delete_adapter("default")
    assert torch.equal(logits(model), logits(build("llama")))


def test_a_fresh_process_gives_identical_logits(saved, tmp_path):
    base, folder, expected = saved
    code = f"""
import torch, peft, transformers
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as known
assert "MOELORA" not in known
import allocsearch.moelora
assert "MOELORA" in known
torch.set_num_threads(1)
base = transformers.AutoModelForCausalLM.from_pretrained({str(base)!r})
model = peft.PeftModel.from_pretrained(base, {str(folder)!r}).eval()
inputs = torch.load({str(tmp_path / "inputs.pt")!r})
torch.save(model(**inputs).logits, {str(tmp_path / "logits.pt")!r})
"""
    torch.save({name: value for name, value in batch().items() if name != "labels"}, tmp_path / "inputs.pt")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_starts_as_the_base_model_and_unloads_to_it(family):
    base = build(family)
    before, modules = copy.deepcopy(base.state_dict()), {name: type(module) for name, module in base.named_modules()}
    expected = logits(base)
    for allocation in (ALLOCATION, "attn:3 0", "4 ffn:2x2"):
        model = peft.get_peft_model(base, MoeLoraConfig(allocation=allocation, task_type="SEQ_CLS" if family == "bert" else None))
        torch.testing.assert_close(logits(model), expected)
        shake(model)
        assert not torch.allclose(logits(model), expected)
        with model.disable_adapter():
            assert torch.equal(logits(model), expected)
        unloaded = model.unload()
        if family == "bert":  # a classification head is PEFT's to unload, and it leaves the trained one
            base = unloaded
            continue
        assert unloaded is base
        assert {name: type(module) for name, module in base.named_modules()} == modules
        assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
        assert not base._forward_hooks
        assert not base._forward_pre_hooks
        assert torch.equal(logits(base), expected)


def test_several_adapters_side_by_side():
    first = adapted(build("llama"), "2x2 0")
    alone = logits(first)
    other = logits(shake(peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="3 attn:2+1")), seed=5))

    first.add_adapter("second", MoeLoraConfig(allocation="3 attn:2+1"))
    assert torch.equal(logits(first), alone)
    first.set_adapter("second")
    for name, parameter in first.named_parameters():
        assert parameter.requires_grad == ("moelora_" in name and name.endswith(".second"))
    donor = shake(peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="3 attn:2+1")), seed=5)
    peft.set_peft_model_state_dict(first, peft.get_peft_model_state_dict(donor), adapter_name="second")
    assert torch.equal(logits(first), other)
    first.set_adapter("default")
    assert torch.equal(logits(first), alone)
    first.base_model.set_adapter(["default", "second"])
    assert not torch.equal(logits(first), alone)
    first.set_adapter("default")
    first.delete_adapter("second")
    assert torch.equal(logits(first), alone)
    assert not any("second" in name for name in first.state_dict())


def test_generates_with_a_cache():
    model = adapted(build("llama"), task_type="CAUSAL_LM").eval()
    ids = batch()["input_ids"][:2, :4]
    mask = torch.ones_like(ids)
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(input_ids=ids, attention_mask=mask, use_cache=True, **settings)
    assert torch.equal(cached, model.generate(input_ids=ids, attention_mask=mask, use_cache=False, **settings))


@pytest.mark.parametrize(("autocast", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_dtype_of_the_masters(autocast, dtype):
    model = peft.get_peft_model(build("llama").bfloat16(), MoeLoraConfig(allocation=ALLOCATION), autocast_adapter_dtype=autocast)
    assert {p.dtype for name, p in model.named_parameters() if "moelora_" in name} == {dtype}
    assert logits(model).dtype == torch.bfloat16


def test_injection_without_a_wrapper():
    base = build("llama")
    expected = logits(adapted(build("llama")))
    model = shake(peft.inject_adapter_in_model(MoeLoraConfig(allocation=ALLOCATION), base))
    assert model is base
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("call", ["merge_and_unload", "merge_adapter"])
def test_merging_is_refused(call):
    model = adapted(build("llama"))
    before = logits(model)
    with pytest.raises(InputError, match=r"depend on its input.*unload"):
        getattr(model, call)()
    assert torch.equal(logits(model), before)


def test_a_second_adapter_from_a_folder(saved):
    _, folder, expected = saved
    for low_cpu_mem_usage in (False, True):
        model = adapted(build("llama"), "4 0", task_type="CAUSAL_LM")
        alone = logits(model)
        model.load_adapter(folder, "second", low_cpu_mem_usage=low_cpu_mem_usage)
        assert torch.equal(logits(model), alone)
        model.set_adapter("second")
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-6)


def test_a_batch_has_one_adapter():
    model = adapted(build("llama"), task_type="CAUSAL_LM")
    with pytest.raises(InputError, match="adapter_names"):
        logits(model, adapter_names=["default"] * 3)


def test_a_classification_head_is_trained_saved_and_loaded(tmp_path):
    model = adapted(build("bert"), task_type="SEQ_CLS")
    with torch.no_grad():
        model.classifier.modules_to_save["default"].weight.normal_()
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(build("bert"), tmp_path)
    assert torch.equal(logits(loaded), logits(model))


def test_copies_and_pickles():
    model = adapted(build("llama"))
    model.train()
    model(**batch()).loss.backward()
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), logits(model))
    base = twin.unload()
    assert not base._forward_hooks
    assert any(isinstance(module, MoeLoraLinear) for module in model.modules())
    assert model.base_model.model._forward_hooks


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        base = build("llama")
        for _ in range(2):
            model = adapted(base, task_type="CAUSAL_LM", lora_dropout=0.1)
            model(**batch()).loss.backward()
            model.unload()
