"""Where adapters go, what they report, how they are copied, and what is refused by name."""

import copy
import re

import peft
import pytest
import torch
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file

from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear
from tests.moelora.conftest import build, logits, own, shake


class TestPlaces:
    @pytest.mark.parametrize(
        ("settings", "kept"),
        [
            ({"exclude_modules": ["up_proj", "down_proj"]}, {"q", "k", "v", "o", "gate"}),
            ({"exclude_modules": r".*layers\.1\..*|.*mlp.*"}, {"q", "k", "v", "o"}),
            ({"target_modules": "q_proj,v_proj"}, {"q", "v"}),
            ({"target_modules": {"ffn"}, "exclude_modules": ["gate_proj"]}, {"up", "down"}),
            ({"target_modules": "all-linear"}, {"q", "k", "v", "o", "gate", "up", "down"}),
        ],
    )
    def test_targets_and_exclusions(self, settings, kept):
        model = peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="2x2 2x2", **settings))
        assert {module.placements["default"].target for module in model.modules() if isinstance(module, MoeLoraLinear)} == kept

    def test_all_excluded_is_an_error(self):
        with pytest.raises(InputError, match="at least one expert"):
            peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="2x2 2x2", exclude_modules=r".*"))

    @pytest.mark.parametrize(("layers", "left"), [([1], "0 2+1"), (0, "4x2 0"), ([1, 0], "4x2 2+1")])
    def test_chosen_layers(self, layers, left, tmp_path):
        config = MoeLoraConfig(allocation="4x2 2+1", layers_to_transform=layers)
        assert config.allocation == left
        model = shake(peft.get_peft_model(build("llama"), config))
        expected = shake(peft.get_peft_model(build("llama"), MoeLoraConfig(allocation=left)))
        assert model.base_model.targeted_module_names == expected.base_model.targeted_module_names
        assert torch.equal(logits(model), logits(expected))
        model.save_pretrained(tmp_path)
        assert peft.PeftConfig.from_pretrained(tmp_path).allocation == left

    @pytest.mark.parametrize("layers", [[], [2], [-1], [0, 5], 2])
    def test_layers_that_are_not_there(self, layers):
        with pytest.raises(InputError, match="`layers_to_transform` must name layers from 0 to 1"):
            MoeLoraConfig(allocation="4x2 2+1", layers_to_transform=layers)


class TestReports:
    def test_status(self, config):
        model = peft.get_peft_model(build("llama"), config)
        model.add_adapter("second", MoeLoraConfig(allocation="0 attn:2x2", task_type="CAUSAL_LM"))
        status = model.get_model_status()
        assert (status.peft_types, status.active_adapters) == ({"default": "MOELORA", "second": "MOELORA"}, ["default"])
        assert (status.enabled, status.merged_adapters) == (True, [])
        assert status.requires_grad == {"default": True, "second": False}
        assert status.available_adapters == ["default", "second"]
        assert status.trainable_params == sum(p.numel() for p in model.parameters() if p.requires_grad)
        layers = {layer.name.partition("layers.")[2]: layer for layer in model.get_layer_status()}
        assert status.num_adapter_layers == len(layers)
        assert layers["1.self_attn.k_proj"].available_adapters[-1] == "second"
        assert {layer.module_type for layer in layers.values()} == {"moelora.MoeLoraLinear"}

    def test_text_names_the_tuner_and_the_adapters(self, config, capsys):
        model = peft.get_peft_model(build("llama"), config)
        text = "".join(repr(module) for module in model.modules() if isinstance(module, MoeLoraLinear))
        assert text.count("moelora.MoeLoraLinear(") == len(model.base_model.targeted_module_names)
        assert "(default)" in text
        model.print_trainable_parameters()
        assert re.search(r"trainable params: [\d,]+ \|\|", capsys.readouterr().out)

    def test_names_of_saved_weights(self, config, tmp_path):
        model = peft.get_peft_model(build("llama"), config)
        model.save_pretrained(tmp_path)
        saved = load_file(tmp_path / "adapter_model.safetensors")
        assert saved.keys() == {name.replace(".default", "") for name in own(model, "default")}
        for name in saved:
            assert re.fullmatch(
                r"base_model\.model\.model\.layers\.\d\.(self_attn|mlp)\.\w+_proj\."
                r"(moelora_(in|out)|moelora_router\.(inner|outer)(_bias)?|moelora_parallel\.(down|up)(_bias)?|moelora_prompt\.(tokens|heads))",
                name,
            )
        assert all(value.dtype == torch.float32 for value in saved.values())

    def test_the_base_models_own_weights(self, config):
        base = build("llama")
        expected = {name: value.clone() for name, value in base.state_dict().items()}
        model = shake(peft.get_peft_model(base, config))
        found = {
            name.replace(".base_layer", "").removeprefix("base_model.model."): value
            for name, value in model.state_dict().items()
            if "moelora_" not in name
        }
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    def test_a_layer_offers_what_a_linear_does(self, config):
        model = peft.get_peft_model(build("llama"), config)
        for name, module in model.named_modules():
            if isinstance(module, MoeLoraLinear):
                plain = model.get_submodule(f"{name}.base_layer")
                assert (module.in_features, module.out_features) == (plain.in_features, plain.out_features)
                assert module.weight is plain.weight
                assert module.bias is plain.bias
                assert not module.merged


class TestRefusals:
    @pytest.mark.parametrize("arguments", [{}, {"safe_merge": True}, {"adapter_names": ["default"]}])
    @pytest.mark.parametrize("call", ["merge_and_unload", "merge_adapter"])
    def test_merging_in_every_form(self, config, call, arguments):
        model = shake(peft.get_peft_model(build("llama"), config))
        expected = logits(model)
        with pytest.raises(InputError, match=r"depend on its input.*unload"):
            getattr(model, call)(**arguments)
        layer = next(module for module in model.modules() if isinstance(module, MoeLoraLinear))
        with pytest.raises(InputError, match="depend on its input"):
            layer.merge(**({} if "adapter_names" not in arguments else arguments))
        model.unmerge_adapter()
        assert torch.equal(logits(model), expected)

    def test_weighted_sums(self, config):
        model = shake(peft.get_peft_model(build("llama"), config))
        model.add_adapter("second", config)
        for how in ("linear", "cat", "svd"):
            with pytest.raises(InputError, match=r"these have routers.*set_adapter"):
                model.add_weighted_adapter(["default", "second"], [1.0, -0.5], "sum", combination_type=how)
        assert set(model.peft_config) == {"default", "second"}

    def test_swapping_in_place(self, config, tmp_path):
        model = shake(peft.get_peft_model(build("llama"), config))
        model.save_pretrained(tmp_path)
        expected = logits(model)
        with pytest.raises(ValueError, match="Hotswapping only supports"):
            hotswap_adapter(model, tmp_path, "default", torch_device="cpu")
        assert torch.equal(logits(model), expected)

    def test_conversion_to_lora(self, config):
        model = peft.get_peft_model(build("llama"), config)
        assert not model.base_model.supports_lora_conversion()
        with pytest.raises(TypeError, match="do not support LoRA conversion"):
            peft.convert_to_lora(model, rank=2)

    def test_mixing_with_other_tuners(self, config):
        with pytest.raises(ValueError, match="MOELORA"):
            peft.get_peft_model(build("llama"), config, mixed=True)


class TestCopies:
    def test_a_copy_shares_nothing(self, config):
        model = shake(peft.get_peft_model(build("llama"), config))
        twin = copy.deepcopy(model)
        expected = logits(model)
        shake(twin, seed=9)
        assert not torch.allclose(logits(twin), expected)
        assert torch.equal(logits(model), expected)
        twin.delete_adapter("default")
        assert torch.equal(logits(model), expected)

    def test_by_state_dict(self, config):
        model, other = (shake(peft.get_peft_model(build("llama"), config), seed=seed) for seed in (1, 2))
        expected = logits(model)
        result = peft.set_peft_model_state_dict(other, peft.get_peft_model_state_dict(model))
        assert not result.unexpected_keys
        assert torch.equal(logits(other), expected)
        other.load_state_dict(model.state_dict())
        assert torch.equal(logits(other), expected)

    def test_weights_of_another_allocation_are_refused(self, tmp_path):
        shake(peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="3x2 2"))).save_pretrained(tmp_path)
        config = tmp_path / "adapter_config.json"
        config.write_text(config.read_text().replace("3x2 2", "2x2 2"))
        with pytest.raises(RuntimeError, match="size mismatch"):
            peft.PeftModel.from_pretrained(build("llama"), tmp_path)
