"""Checkpoints and adapters as a disk or a stranger may leave them: they are read as they were written, or one line says what is wrong."""

import json
import struct

import peft
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraConfig
from allocsearch.moelora.mola_checkpoint import load_mola
from allocsearch.training import checkpoint
from allocsearch.tuning.evaluation import load_adapter
from allocsearch.tuning.sources import exported_config
from tests.test_damaged_files import damaged_bytes, damaged_document, fuzz, refused_in_one_line

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
HEADER = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + b"\0\0\0\0"
MOLA = json.dumps({"peft_type": "MIXLORA", "r": [8] * 4, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}).encode()
MOE_LORA = json.dumps({"peft_type": "MOELORA", "allocation": "2x4*2", "target_modules": ["q"], "task_type": "CAUSAL_LM"}).encode()


def stepped(model):
    """A model that has made one step, and its optimiser."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    return model, optimiser


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkpoint's bytes and its content."""
    path = tmp_path_factory.mktemp("whole") / "checkpoint.safetensors"
    torch.manual_seed(0)
    checkpoint.save(path, checkpoint.tensors_of(*stepped(nn.Linear(2, 3))), step=1, identity={"study": "s"}, notes={"num_passes": 1})
    return path.read_bytes(), checkpoint.load(path)


@fuzz
@given(st.data())
def test_a_checkpoint_is_read_as_it_was_written_or_refused(tmp_path, written, data):
    content, whole = written
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(data.draw(damaged_bytes(content) | st.builds(lambda n: struct.pack("<Q", n) + content[8:], st.integers(0, 2**64 - 1))))

    def read():
        found = checkpoint.load(path)
        assert (found.step, found.identity, found.notes) == (whole.step, whole.identity, whole.notes)
        assert found.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in whole.tensors.items())

    refused_in_one_line(read)


def test_every_single_changed_byte_of_the_tensors_is_noticed(tmp_path, written):
    content, _ = written
    path = tmp_path / "checkpoint.safetensors"
    for at in range(8 + struct.unpack("<Q", content[:8])[0], len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(InputError, match=r"must be whole, but .* \(its checksum is of other content\)"):
            checkpoint.load(path)


def test_a_checkpoint_without_a_checksum_is_of_an_earlier_version_and_not_damaged(tmp_path, written):
    path = tmp_path / "checkpoint.safetensors"
    save_file(written[1].tensors, path, metadata={"step": "1", "identity": "{}", "notes": "{}"})
    with pytest.raises(InputError, match="was written by an earlier version, without: remove it and leave --resume out"):
        checkpoint.load(path)


def test_a_checkpoint_of_other_shapes_changes_nothing(written):
    model, optimiser = stepped(nn.Linear(2, 4))
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(checkpoint.UnfitError, match=r"'bias' is \(3,\) in it and \(4,\) in the model"):
        checkpoint.restore(written[1], model, optimiser)
    assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))


def as_json(content):
    try:
        return json.dumps(yaml.safe_load(content), default=str).encode()
    except (yaml.YAMLError, RecursionError):
        return content


@pytest.mark.parametrize("config", [MOLA, MOE_LORA], ids=["mola", "moe-lora"])
@fuzz
@given(st.data())
def test_adapters(tmp_path, config, data):
    folder = tmp_path / "adapter"
    folder.mkdir(exist_ok=True)
    weights = damaged_bytes(WEIGHTS) | st.just(WEIGHTS) | st.builds(lambda n: struct.pack("<Q", n) + HEADER, st.integers(0, 2**64 - 1))
    (folder / "adapter_model.safetensors").write_bytes(data.draw(weights))
    (folder / "adapter_config.json").write_bytes(data.draw(damaged_bytes(config) | damaged_document(config).map(as_json)))
    refused_in_one_line(lambda: load_mola(nn.Module(), folder))
    refused_in_one_line(lambda: exported_config(folder))
    refused_in_one_line(lambda: load_adapter(folder, dtype="float32", classes=None, base=str(tmp_path / "no-base")))


def test_an_adapter_that_lacks_weights_is_refused(tmp_path, tiny_model):
    """PEFT would leave the missing ones at their random values, with a warning."""
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), MoeLoraConfig(allocation="2x4*4", task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path)
    load_adapter(tmp_path, dtype="float32", classes=None, base=str(tiny_model))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors.pop(min(tensors))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"must fit its base, but .* Found missing adapter keys"):
        load_adapter(tmp_path, dtype="float32", classes=None, base=str(tiny_model))
