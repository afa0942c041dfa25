"""Adapters that MoLA's own code saved: the same logits from our stacked experts, and one clear line for what is none."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from allocsearch.core.allocation import Allocation
from allocsearch.core.errors import InputError
from allocsearch.moelora import load_mola
from tests.formats.conftest import TARGETS, llama, mola_logits, mola_parts, mola_tensors, token_ids, write_config

COUNTS, RANKS = (1, 2, 4, 3), (4, 2, 8, 3)
TOP_K = (1, 2, 2, 2)


@pytest.fixture
def checkpoint(tmp_path):
    parts = mola_parts(llama(), counts=COUNTS, ranks=RANKS)
    torch.save(mola_tensors(parts), tmp_path / "adapter_model.bin")
    write_config(tmp_path, ranks=RANKS)
    return tmp_path, parts


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


def test_the_loaded_adapter_computes_what_mola_computes(checkpoint):
    folder, parts = checkpoint
    expected = mola_logits(llama(), parts, token_ids(), ranks=RANKS, top_k=TOP_K)
    model = load_mola(llama(), folder)
    torch.testing.assert_close(logits(model, token_ids()), expected, rtol=1e-4, atol=1e-5)
    assert (expected - logits(llama(), token_ids())).abs().max() > 0.01, "the experts must matter"
    assert Allocation.parse(model.peft_config["default"].allocation) == Allocation.parse("4 2x2 4x8 3x3")


@pytest.mark.parametrize("top_k", [1, 3, [1, 1, 4, 2]])
def test_experts_per_token_can_be_given(checkpoint, top_k):
    folder, parts = checkpoint
    wanted = top_k if isinstance(top_k, list) else [top_k] * 4
    capped = [min(k, count) for k, count in zip(wanted, COUNTS, strict=True)]
    expected = mola_logits(llama(), parts, token_ids(), ranks=RANKS, top_k=capped)
    torch.testing.assert_close(logits(load_mola(llama(), folder, top_k=top_k), token_ids()), expected, rtol=1e-4, atol=1e-5)


def test_a_subset_of_targets_and_a_safetensors_file(tmp_path):
    targets = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    parts = mola_parts(llama(), counts=COUNTS, ranks=RANKS, targets=targets)
    save_file(mola_tensors(parts), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.bin").write_bytes(b"never read")
    write_config(tmp_path, ranks=RANKS)
    expected = mola_logits(llama(), parts, token_ids(), ranks=RANKS, top_k=TOP_K)
    model = load_mola(llama(), tmp_path)
    torch.testing.assert_close(logits(model, token_ids()), expected, rtol=1e-4, atol=1e-5)
    config = model.peft_config["default"]
    assert config.target_modules == ["down", "q", "v"]
    assert config.allocation == "4 2x2 4x8 3x3", "said of the targets that carry experts"


def test_what_was_loaded_is_saved_and_loaded_as_ours(checkpoint, tmp_path):
    folder, _ = checkpoint
    model = load_mola(llama(), folder, top_k=[1, 2, 3, 2])
    model.save_pretrained(tmp_path / "ours")
    again = PeftModel.from_pretrained(llama(), tmp_path / "ours").eval()
    assert torch.equal(logits(again, token_ids()), logits(model, token_ids()))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_can_be_trained_on(checkpoint):
    write_config(checkpoint[0], ranks=RANKS, base_model_name_or_path="another/name")
    model = load_mola(llama(), checkpoint[0], is_trainable=True)
    assert model.peft_config["default"].lora_dropout == 0.05
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 4 * len(TARGETS)
    assert all("moelora_" in name for name in trained)


def broken(tensors, case):
    """The tensors with one fault each."""
    q = "base_model.model.model.layers.2.self_attn.q_proj"
    if case == "no router":
        del tensors[f"{q}.router.router.weight"]
    if case == "no B":
        del tensors[f"{q}.lora_B_1.weight"]
    if case == "a gap":
        tensors[f"{q}.lora_A_7.weight"], tensors[f"{q}.lora_B_7.weight"] = tensors[f"{q}.lora_A_0.weight"], tensors[f"{q}.lora_B_0.weight"]
    if case == "other rank":
        tensors[f"{q}.lora_A_0.weight"] = torch.zeros(5, 16)
    if case == "small router":
        tensors[f"{q}.router.router.weight"] = torch.zeros(3, 16)
    if case == "plain lora":
        tensors[f"{q}.lora_A.weight"] = torch.zeros(8, 16)
    if case == "unknown module":
        tensors["base_model.model.model.layers.0.self_attn.z_proj.lora_A_0.weight"] = torch.zeros(4, 16)
    if case == "too many layers":
        tensors[q.replace(".2.", ".9.") + ".lora_A_0.weight"] = torch.zeros(8, 16)
        tensors[q.replace(".2.", ".9.") + ".lora_B_0.weight"] = torch.zeros(16, 8)
    return tensors


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no router", "must have a router.*has 4 experts and none"),
        ("no B", r"numbered from 0.*B \[0, 2, 3\]"),
        ("a gap", "numbered from 0"),
        ("other rank", "the layer's rank 8.*expert 0"),
        ("small router", "4 × 16"),
        ("plain lora", "must be a matrix under"),
        ("unknown module", "z_proj"),
        ("too many layers", "has 4 and .*layer 9"),
    ],
)
def test_a_faulty_file_is_refused_and_leaves_the_model_alone(checkpoint, case, message):
    folder, parts = checkpoint
    torch.save(broken(mola_tensors(parts), case), folder / "adapter_model.bin")
    model = llama()
    with pytest.raises(InputError, match=message):
        load_mola(model, folder)
    assert torch.equal(logits(model, token_ids()), logits(llama(), token_ids()))
    assert not any("moelora" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 8}, "list of one rank per layer.*PeftModel.from_pretrained"),
        ({"r": [4, 0, 8, 3]}, "list of one rank per layer"),
        ({"lora_alpha": "16"}, "lora_alpha > 0"),
        ({"bias": "all"}, "experts and routers alone"),
    ],
)
def test_a_faulty_config_is_refused(checkpoint, changes, message):
    folder, _ = checkpoint
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=message):
        load_mola(llama(), folder)


def test_files_that_are_missing_or_no_tensors_are_refused(checkpoint):
    folder, _ = checkpoint
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")  # a pickle that would run a program
    with pytest.raises(InputError, match="tensors and nothing else"):
        load_mola(llama(), folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(InputError, match="holds neither"):
        load_mola(llama(), folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(InputError, match="must hold an object"):
        load_mola(llama(), folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="JSON file"):
        load_mola(llama(), folder)


def test_another_model_is_refused(checkpoint):
    with pytest.raises(InputError, match="for another model"):
        load_mola(llama(hidden=32), checkpoint[0])
    with pytest.raises(InputError, match="must be in the model"):
        load_mola(llama(num_layers=2), checkpoint[0])
