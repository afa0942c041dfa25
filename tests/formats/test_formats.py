"""What each format says of an allocation, and what it refuses to say."""

import json
import os
import shlex
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model

from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import cost
from allocsearch.core.errors import InputError
from allocsearch.core.geometry import Routing
from allocsearch.formats.guilomo import allocation_from_guilomo
from allocsearch.formats.lora import lora_config
from allocsearch.formats.recipe import Recipe
from allocsearch.formats.table import FORMATS
from allocsearch.formats.writing import new_folder, write, write_text
from allocsearch.models import shape_of
from allocsearch.moelora import MoeLoraConfig
from tests.formats.conftest import llama, token_ids
from tests.strategies import sizes

SHAPE = shape_of(llama())


def recipe(text, *, router="topk", top_k=2, alpha=16, targets=("attn", "ffn"), weights=None, swi_x=4):
    return Recipe(Allocation.parse(text), SHAPE, Routing(router, top_k, targets, swi_x), alpha, "base", weights)


def arguments(document):
    words = shlex.split(document.text)
    return dict(zip(words[::2], words[1::2], strict=True))


def test_mola_gets_one_number_per_layer():
    found = arguments(FORMATS["mola"](recipe("1x8 2x8 4x8*2", top_k=2)))
    assert found == {
        "--number_experts": "1,2,4,4",
        "--top_k": "1,2,2,2",
        "--lora_r": "8,8,8,8",
        "--lora_alpha": "16",
        "--lora_target_modules": "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj",
        "--obalance": "True",
    }
    assert arguments(FORMATS["mola"](recipe("attn:2x8*4", top_k=1)))["--lora_target_modules"] == "q_proj,k_proj,v_proj,o_proj"
    assert arguments(FORMATS["mola"](recipe("3x8*4", targets=("q", "down"))))["--lora_target_modules"] == "q_proj,down_proj"


def test_mola_says_what_one_alpha_for_all_ranks_means():
    assert FORMATS["mola"](recipe("2x8*4", alpha="2r")).notes == ()
    assert arguments(FORMATS["mola"](recipe("2x8*4", alpha="2r")))["--lora_alpha"] == "16"
    document = FORMATS["mola"](recipe("2x4*2 2x8*2", alpha="2r"))
    assert arguments(document)["--lora_alpha"] == "8"
    assert "2 at rank 4, 1 at rank 8" in document.notes[0]


@pytest.mark.parametrize(
    ("form", "text", "options", "message"),
    [
        ("mola", "2x8*3 0", {}, "layer 3 is frozen"),
        ("mola", "2x8*3 8+4", {}, "layer 3 have"),
        ("mola", "2x8*3 attn:2x8,ffn:2x4", {}, "same experts, but in layer 3 q"),
        ("mola", "2x8*3 attn:2x8", {}, "one list of targets"),
        ("mola", "2x8*4", {"router": "dense"}, "needs the router topk"),
        ("guilomo", "2x8*3 0", {}, "layer 3 is frozen"),
        ("guilomo", "2x8*3 attn:2x8", {}, "one list of targets"),
        ("guilomo", "2x8*3 attn:1x8,ffn:2x8", {}, r"use \[1, 2\] of theirs"),
        ("guilomo", "2x8*4", {"router": "sigmoid"}, "needs the router topk"),
        ("moa", "2x8*4", {}, "needs the router sigmoid or threshold"),
        ("moa", "q:8*3 q:4", {"router": "sigmoid"}, "one rank for all LoRA experts.*layer 3 4"),
        ("moa", "q:8*3 v:8", {"router": "sigmoid"}, "one list of LoRA targets.*q in layer 0 and v in layer 3"),
        ("moa", "q:2x8*4", {"router": "sigmoid"}, "one LoRA expert per place"),
        ("moa", "parallel:16*3 parallel:8", {"router": "sigmoid"}, "one size for all parallel"),
        ("moa", "0*4", {"router": "sigmoid"}, "all are frozen"),
        ("lora", "8*3 2x4", {}, "has 2: export it with --format peft"),
        ("lora", "8*4", {"router": "sigmoid"}, "needs the router topk or dense"),
        ("lora", "0*4", {}, "all are frozen"),
    ],
)
def test_what_a_format_cannot_say_is_refused_with_the_reason(form, text, options, message):
    with pytest.raises(InputError, match=message):
        FORMATS[form](recipe(text, **options))


def test_moa_gets_its_flags():
    text = "q:8,k:8,v:8,o:8,down:8,parallel:16,prompt:10"
    document = FORMATS["moa"](recipe(f"{text}*4", router="sigmoid", alpha=8))
    assert arguments(document) == {
        "--lora_layers": "0-4", "--lora_rank": "8", "--lora_targets": "Q,K,V,O,FFN_DOWN", "--lora_alpha": "8", "--p_adapter_layers": "0-4",
        "--p_adapter_size": "16", "--prompt_layers": "0-4", "--prompt_len": "10", "--swi_x": "4", "--expert_num": "1",
    }  # fmt: skip
    assert "soft_moa" in document.notes[0]
    sparse = FORMATS["moa"](recipe("q:8,parallel:4 0 q:8 parallel:4", router="threshold", alpha="2r", swi_x=0))
    assert arguments(sparse) == {
        "--lora_layers": "0-1,2-3", "--lora_rank": "8", "--lora_targets": "Q", "--lora_alpha": "16", "--p_adapter_layers": "0-1,3-4",
        "--p_adapter_size": "4", "--swi_x": "0", "--max_threshold": "0.5",
    }  # fmt: skip
    assert "sparse_moa" in sparse.notes[0]


def test_guilomo_names_every_linear_in_full():
    document = FORMATS["guilomo"](recipe("2x8*3 attn:8+4,ffn:3x2"))
    counts, ranks = (json.loads(document.files[name]) for name in ("expert.json", "rank.json"))
    assert len(counts) == 4 * 7
    assert counts["model.layers.3.self_attn.q_proj"] == 2
    assert counts["model.layers.3.mlp.up_proj"] == 3
    assert [ranks[f"model.layers.3.self_attn.q_proj.expertlora_E_vector_{i}"] for i in range(2)] == [8, 4]
    assert len(ranks) == sum(counts.values())
    assert document.notes[0] == "train with --top_k 2,2,2,2"
    assert "last expert's rank" in document.notes[1]
    assert FORMATS["guilomo"](recipe("2x8*4")).notes == ("train with --top_k 2,2,2,2",)


@given(st.lists(st.fixed_dictionaries({site.name: sizes(largest=9, most=4) for site in SHAPE.layers[0]}), min_size=4, max_size=4))
def test_guilomo_files_give_every_linear_its_experts(layers):
    counts, ranks = {}, {}
    for layer, of_target in enumerate(layers):
        for site in SHAPE.layers[layer]:
            module = f"model.layers.{layer}.{site.path}"
            if of_target[site.name]:
                counts[module] = len(of_target[site.name])
                ranks |= {f"{module}.{i}": rank for i, rank in enumerate([*of_target[site.name], 99])}  # the last is left over
    allocation = allocation_from_guilomo(counts, ranks, SHAPE)
    for plan, of_target in zip(allocation, layers, strict=True):
        assert {name: plan.sizes(name) for name in of_target} == {n: tuple(sorted(s, reverse=True)) for n, s in of_target.items()}
    assert Allocation.parse(str(allocation)) == allocation


@pytest.mark.parametrize("text", ["2x8*4", "8+4 2x8 attn:3x2,ffn:4 16", "attn:2x8,ffn:2x4*4"])
def test_guilomo_round_trip(text, tmp_path):
    write(FORMATS["guilomo"](recipe(text, top_k=1)), tmp_path / "out")
    assert allocation_from_guilomo(tmp_path / "out" / "expert.json", tmp_path / "out" / "rank.json", SHAPE) == Allocation.parse(text)


@pytest.mark.parametrize(
    ("counts", "ranks", "message"),
    [
        ({"model.layers.9.mlp.up_proj": 1}, {"model.layers.9.mlp.up_proj.0": 4}, "has no 'model.layers.9"),
        ({"model.layers.0.mlp.up_proj": 2}, {"model.layers.0.mlp.up_proj.0": 4}, "expert 1 of 2"),
        ({}, {"model.layers.0.mlp.up_proj.0": 4}, "has none in the first file"),
        ({"model.layers.0.mlp.up_proj": 0}, {}, "whole numbers >= 1"),
        ({"model.layers.0.mlp.up_proj": 1}, {"model.layers.0.mlp.up_proj": 4}, "an expert's number"),
        ("missing.json", {}, "must be JSON"),
    ],
)
def test_faulty_guilomo_files_are_refused(counts, ranks, message):
    with pytest.raises(InputError, match=message):
        allocation_from_guilomo(counts, ranks, SHAPE)


LORAS = ["8*4", "8 4 2 16", "attn:8*2 0 ffn:4", "q:8,v:4 q:8 v:8 0"]


@pytest.mark.parametrize("alpha", [16, "2r", 12.5])
@pytest.mark.parametrize("text", LORAS)
def test_pefts_own_lora_is_the_allocation(text, alpha, tmp_path):
    ours = get_peft_model(llama(), MoeLoraConfig(allocation=text, lora_alpha=alpha)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "moelora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    ours.save_pretrained(tmp_path / "ours")
    given_ = recipe(text, alpha=alpha, weights=tmp_path / "ours" / "adapter_model.safetensors")
    write(FORMATS["lora"](given_), tmp_path / "theirs")

    config = lora_config(recipe(text, alpha=alpha))
    config.base_model_name_or_path = None  # PEFT warns of a base that goes by another name
    built = get_peft_model(llama(), config)
    assert built.get_nb_trainable_parameters()[0] == cost(given_.allocation, SHAPE, given_.routing).trainable
    theirs = PeftModel.from_pretrained(llama(), tmp_path / "theirs").eval()
    assert type(theirs.peft_config["default"]) is LoraConfig
    ids = token_ids()
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids).logits, rtol=1e-5, atol=1e-5)
        merged = theirs.merge_and_unload()
        torch.testing.assert_close(merged(ids).logits, ours(ids).logits, rtol=1e-4, atol=1e-4)
        assert (merged(ids).logits - llama()(ids).logits).abs().max() > 0.01


def test_a_lora_without_weights_is_a_config_to_train(tmp_path):
    document = FORMATS["lora"](recipe("8 4 2 16", alpha="2r"))
    assert document.notes
    write(document, tmp_path / "config")
    config = LoraConfig.from_pretrained(tmp_path / "config")
    assert not config.inference_mode
    assert config.target_modules == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    with pytest.raises(InputError, match="new or empty folder"):
        write(document, tmp_path / "config")


@pytest.mark.parametrize("form", ["mola", "guilomo"])
def test_what_is_no_regular_file_is_left_as_it_is(tmp_path, form):
    """Renamed onto it, a draft would take a device's place."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match="choose another with -o"):
            write(FORMATS[form](recipe("2x8*4", top_k=1)), tmp_path / name)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_text_does_not_take_the_place_of_a_folder(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        write_text("text", tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_draft_goes_where_what_is_written_fails(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        write_text("text", tmp_path / "out.txt")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputError, match="No space left"):
        write(FORMATS["guilomo"](recipe("2x8*4", top_k=1)), tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_link_to_a_file_stays_one(tmp_path):
    (tmp_path / "kept").write_text("before")
    (tmp_path / "link").symlink_to("kept")
    write_text("after", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept").read_text() == "after"


def test_writing_says_where_it_cannot(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="can be written"):
        write(FORMATS["mola"](recipe("2x8*4")), tmp_path / "file" / "below")


def test_what_fails_within_a_new_folder_is_not_said_of_the_folder(tmp_path):
    """Such as weights that cannot be read."""
    with pytest.raises(PermissionError, match="weights"), new_folder(tmp_path / "out"):
        raise PermissionError(13, "Permission denied", "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_as_one(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"the output must be a place that can be written, but .*file/out: "),
        new_folder(tmp_path / "file" / "out"),
    ):
        pass
