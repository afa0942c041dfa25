"""Shapes from configs, against values worked out by hand; loading a base."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.models import load_base, model_digest, model_shape, resolve, shape_of

FIXTURES = Path(__file__).parent / "fixtures"

# Two layers, hidden 32, MLP 64, four heads of 8, two of them for keys and values.
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "pad_token_id": 0,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "head_dim": 8}
LLAMA_SITES = {"q": (32, 32), "k": (32, 16), "v": (32, 16), "o": (32, 32), "gate": (32, 64), "up": (32, 64), "down": (64, 32)}
ENCODER_SITES = {"q": (32, 32), "k": (32, 32), "v": (32, 32), "o": (32, 32), "up": (32, 64), "down": (64, 32)}
FUSED_SITES = {"qkv": (32, 96), "o": (32, 32), "up": (32, 64), "down": (64, 32)}

FAMILIES = {
    "llama": (GROUPED, "LlamaForCausalLM", "model.layers", LLAMA_SITES),
    "mistral": (GROUPED, "MistralForCausalLM", "model.layers", LLAMA_SITES),
    "qwen2": (GROUPED, "Qwen2ForCausalLM", "model.layers", LLAMA_SITES),
    "qwen3": (GROUPED, "Qwen3ForCausalLM", "model.layers", LLAMA_SITES),
    "gemma": (GROUPED, "GemmaForCausalLM", "model.layers", LLAMA_SITES),
    "gemma2": (GROUPED, "Gemma2ForCausalLM", "model.layers", LLAMA_SITES),
    "gemma3_text": (GROUPED, "Gemma3ForCausalLM", "model.layers", LLAMA_SITES),
    "phi": ({**COMMON, "num_key_value_heads": 2}, "PhiForCausalLM", "model.layers", {
        "q": (32, 32), "k": (32, 16), "v": (32, 16), "o": (32, 32), "up": (32, 64), "down": (64, 32),
    }),
    "phi3": ({**COMMON, "num_key_value_heads": 2}, "Phi3ForCausalLM", "model.layers", {
        "qkv": (32, 64), "o": (32, 32), "gate_up": (32, 128), "down": (64, 32),
    }),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 16}, "GPT2LMHeadModel", "transformer.h", {
        "qkv": (32, 96), "o": (32, 32), "up": (32, 128), "down": (128, 32),
    }),
    "gpt_neox": (COMMON, "GPTNeoXForCausalLM", "gpt_neox.layers", FUSED_SITES),
    "bert": (COMMON, "BertModel", "encoder.layer", ENCODER_SITES),
    "roberta": (COMMON, "RobertaModel", "encoder.layer", ENCODER_SITES),
    "distilbert": (
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 100},
        "DistilBertModel", "transformer.layer", ENCODER_SITES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_family_gives_every_adaptable_linear(kind):
    settings, architecture, stack, sites = FAMILIES[kind]
    shape = model_shape(AutoConfig.for_model(kind, **settings))
    assert (shape.architecture, shape.stack) == (architecture, stack)
    assert shape.num_layers == 2
    for layer in shape.layers:
        assert {site.name: (site.d_in, site.d_out) for site in layer} == sites
    assert (shape.hidden_size, shape.num_heads) == (32, 4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_paths_lead_to_the_linears_of_a_built_model_and_parameters_are_counted_once(kind):
    config = AutoConfig.for_model(kind, **FAMILIES[kind][0])
    shape = model_shape(config)
    encoder = shape.architecture.endswith("Model") and kind != "gpt2"
    model = (AutoModel if encoder else AutoModelForCausalLM).from_config(config)
    for number, layer in enumerate(shape.layers):
        for site in layer:
            weight = model.get_submodule(f"{shape.stack}.{number}.{site.path}").weight
            assert weight.numel() == site.d_in * site.d_out
    assert shape.num_parameters == sum({id(p): p.numel() for p in model.parameters()}.values())
    assert shape_of(model) == shape


def test_a_bert_decoder_is_a_causal_model():
    assert model_shape(AutoConfig.for_model("bert", **COMMON, is_decoder=True)).architecture == "BertLMHeadModel"


def test_tied_weights_count_once():
    shapes = [model_shape(AutoConfig.for_model("llama", **GROUPED, tie_word_embeddings=tied)) for tied in (True, False)]
    assert shapes[1].num_parameters - shapes[0].num_parameters == 100 * 32


@pytest.mark.parametrize(("allocation", "trainable"), [
    ("2x8*8 4x8*8 6x8*8 8x8*8", 105_635_840),
    ("8x8*32", 169_017_344),
    ("64*32", 159_907_840),
    ("2x2*8 4x4*8 6x6*8 8x8*8", 80_650_240),
])  # fmt: skip
def test_llama_2_7b_costs_what_the_papers_formulas_give(allocation, trainable):
    shape = model_shape(FIXTURES / "llama-2-7b")
    assert shape.num_parameters == 6_738_415_616
    assert cost(Allocation.parse(allocation), shape, Routing(top_k=2)).trainable == trainable


@pytest.mark.parametrize(("router", "kinds", "trainable"), [
    ("sigmoid", "q:8,k:8,v:8,o:8,down:8,parallel:16,prompt:10", 24_520_288),
    ("threshold", "q:8,k:8,v:8,o:8,down:8,parallel:16", 22_289_120),
    ("threshold", "q:8,k:8,v:8,o:8,down:8,parallel:16,prompt:10", 24_651_392),
])  # fmt: skip
def test_llama_31_8b_costs_what_moas_formulas_give(router, kinds, trainable):
    shape = model_shape(str(FIXTURES / "llama-3.1-8b" / "config.json"))  # a bare file
    assert cost(Allocation.parse(f"{kinds}*32"), shape, Routing(router=router)).trainable == trainable


def test_a_model_of_seventy_billion_parameters_needs_no_memory():
    config = AutoConfig.for_model(
        "llama",
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    assert model_shape(config).num_parameters == 70_553_706_496


def test_a_built_in_name_needs_no_files(monkeypatch, tmp_path):
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path))
    shape = model_shape("smollm2-135m")
    assert (shape.num_layers, shape.hidden_size, shape.num_heads, shape.num_parameters) == (30, 576, 9, 134_515_008)
    assert not list(tmp_path.iterdir())


def test_reading_a_shape_is_silent(capfd):
    model_shape(AutoConfig.for_model("bert", **COMMON, is_decoder=True))
    assert capfd.readouterr() == ("", "")


def test_an_unknown_architecture_is_refused_with_its_linears():
    config = AutoConfig.for_model("mamba", hidden_size=32, num_hidden_layers=2, vocab_size=100)
    with pytest.raises(InputError, match=r"MambaForCausalLM has .*backbone\.layers\.N\.mixer\.in_proj"):
        model_shape(config)


def test_two_stacks_of_layers_are_refused():
    config = AutoConfig.for_model("bart", d_model=32, encoder_layers=1, decoder_layers=1, vocab_size=100, pad_token_id=0)
    with pytest.raises(InputError, match=r"one stack of layers.*decoder\.layers.*encoder\.layers"):
        model_shape(config)


@pytest.mark.parametrize(("content", "message"), [
    ("not json", "must be a JSON file"),
    ("[1]", "`model_type`"),
    ('{"hidden_size": 8}', "`model_type`"),
    ('{"model_type": "no-such-type"}', "transformers .* knows"),
    ('{"model_type": "llama", "hidden_size": 30, "num_attention_heads": 0}', "can build|knows"),
])  # fmt: skip
def test_a_file_that_is_no_config_is_one_clear_line(tmp_path, content, message):
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        model_shape(file)
    assert "\n" not in str(caught.value)


def test_missing_places_are_not_looked_up_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("allocsearch.hub.get_session", lambda: pytest.fail("asked the hub"))
    for name in ("./nothing", str(tmp_path / "nothing"), "~/no/such/folder"):
        for read in (model_shape, resolve):
            with pytest.raises(InputError, match="a model must be"):
                read(name)
    with pytest.raises(InputError, match=r"must hold a config\.json, but .* holds nothing"):
        model_shape(tmp_path)


def test_a_config_cannot_bring_code_along(tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}})
    )
    with pytest.raises(InputError):
        model_shape(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a tiny Llama in float32 and a tokenizer without a pad token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **GROUPED)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, "good": 3, "bad": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    return folder


def test_a_base_is_frozen_in_evaluation_mode_with_left_padding(tiny):
    model, tokenizer = load_base(tiny, dtype="float32")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("left", "</s>")
    assert {p.dtype for p in load_base(str(tiny), dtype=torch.bfloat16).model.parameters()} == {torch.bfloat16}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists a process's mappings")
def test_a_base_is_memory_mapped(tiny):
    maps = Path("/proc/self/maps")
    base = load_base(tiny, dtype="float32")
    assert str(tiny / "model.safetensors") in maps.read_text()
    assert base.model is not None


def test_the_head_gets_packed_input(tiny):
    # A strided input makes torch copy the head's weight once per row: several times the cost of the layers.
    seen = []
    model, _ = load_base(tiny, dtype="float32")
    model.get_output_embeddings().register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].is_contiguous()))
    model(input_ids=torch.tensor([[3, 4, 3], [4, 4, 3]]), logits_to_keep=1)
    assert seen == [True]


def test_loading_says_what_is_missing(tiny, tmp_path):
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="must hold safetensors weights and a tokenizer"):
        load_base(pickled)
    with pytest.raises(InputError, match="safetensors"):
        model_digest(pickled)
    with pytest.raises(InputError, match="`dtype` must be one of"):
        load_base(tiny, dtype="int8")
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    AutoConfig.for_model("bert", **COMMON).save_pretrained(encoder)
    with pytest.raises(InputError, match="causal language model"):
        load_base(encoder)


def test_a_digest_is_of_the_weights(tiny, tmp_path):
    import hashlib

    weights = (tiny / "model.safetensors").read_bytes()
    assert model_digest(tiny) == hashlib.sha256(weights).hexdigest()
    for number in (1, 2):
        (tmp_path / f"model-0000{number}-of-00002.safetensors").write_bytes(weights[:number])
    sharded = model_digest(str(tmp_path))
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"other")
    assert sharded != model_digest(tmp_path)
