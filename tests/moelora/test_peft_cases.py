"""What PEFT's users do to adapters, case by case: train, name, switch, delete and disable them, beside heads of their own."""

import copy

import peft
import pytest
import torch
from safetensors.torch import load_file

from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear
from tests.moelora.conftest import batch, build, logits, own, shake


def names_with_grad(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


class TestTraining:
    def test_only_the_adapter_moves_and_all_of_it(self, config):
        model = shake(peft.get_peft_model(build("llama"), config)).train()
        before = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
        for _ in range(2):
            optimizer.zero_grad()
            model(**batch()).loss.backward()
            optimizer.step()
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]) != ("moelora_" in name), name

    def test_trained_weights_survive_the_folder(self, config, tmp_path):
        model = shake(peft.get_peft_model(build("llama"), config))
        model.save_pretrained(tmp_path)
        loaded = peft.PeftModel.from_pretrained(build("llama"), tmp_path)
        expected = peft.get_peft_model_state_dict(model)
        found = peft.get_peft_model_state_dict(loaded)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("autocast", [True, False])
    def test_half_precision_in_every_form(self, config, dtype, autocast):
        model = peft.get_peft_model(build("llama").to(dtype), config, autocast_adapter_dtype=autocast)
        shake(model, scale=0.05)
        assert {p.dtype for name, p in model.named_parameters() if "moelora_" in name} == {torch.float32 if autocast else dtype}
        found = logits(model)
        assert found.dtype == dtype
        assert torch.isfinite(found).all()
        model.train()(**batch()).loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


class TestSeveral:
    def test_the_name_makes_no_difference(self, config):
        expected = logits(shake(peft.get_peft_model(build("llama"), config)))
        for name in ("other", "a_b", "base_layer2", "router", "in", "layer"):
            assert torch.equal(logits(shake(peft.get_peft_model(build("llama"), config, adapter_name=name))), expected)

    def test_a_name_within_another(self, config, tmp_path):
        model = shake(peft.get_peft_model(build("llama"), config, adapter_name="adapter"))
        model.add_adapter("adapter_1", config)
        model.add_adapter("my_adapter", config)
        model.save_pretrained(tmp_path, selected_adapters=["adapter", "my_adapter"])
        kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        assert kept.keys() == load_file(tmp_path / "my_adapter" / "adapter_model.safetensors").keys()
        assert not any("adapter" in name for name in kept)

    def test_only_the_active_one_asks_for_gradients(self, config):
        model = peft.get_peft_model(build("llama"), config)
        assert names_with_grad(model) == own(model, "default")
        model.add_adapter("second", config)
        assert names_with_grad(model) == own(model, "default")
        model.set_adapter("second")
        assert names_with_grad(model) == own(model, "second")
        model.base_model.set_adapter(["default", "second"])
        assert names_with_grad(model) == own(model, "default") | own(model, "second")
        model.set_requires_grad("second", requires_grad=False)
        assert names_with_grad(model) == own(model, "default")
        model.set_adapter("second", inference_mode=True)
        assert not names_with_grad(model)

    def test_layers_that_only_one_of_them_has(self):
        model = shake(peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="2x2 0")))
        model.add_adapter("upper", MoeLoraConfig(allocation="0 2x2"))
        shake(model, seed=3)
        first = logits(model)
        model.set_adapter("upper")
        upper = logits(model)
        assert not torch.allclose(first, upper)
        assert names_with_grad(model) == own(model, "upper")
        with pytest.warns(UserWarning, match="active adapter to default"):
            model.delete_adapter("upper")
        assert not own(model, "upper")
        assert torch.equal(logits(model), first)
        layers = model.base_model.model.model.layers
        assert isinstance(layers[0].mlp.up_proj, MoeLoraLinear)
        assert layers[1].mlp.up_proj._all_available_adapter_names() == []

    def test_deleting_the_active_one_leaves_another_active(self, config):
        model = shake(peft.get_peft_model(build("llama"), config))
        model.add_adapter("second", MoeLoraConfig(allocation="2 2", task_type="CAUSAL_LM"))
        with pytest.warns(UserWarning, match="active adapter to second"):
            model.delete_adapter("default")
        assert model.active_adapters == ["second"]
        assert not own(model, "default")
        for module in model.modules():
            if isinstance(module, MoeLoraLinear):
                assert "default" not in module.placements
                assert "default" not in module._all_available_adapter_names()
        torch.testing.assert_close(logits(model), logits(build("llama")))  # what is left has never been trained

    def test_the_last_one_can_go_and_another_come(self, config):
        model = shake(peft.get_peft_model(build("llama"), config))
        expected = logits(model)
        model.delete_adapter("default")
        assert torch.equal(logits(model.base_model), logits(build("llama")))
        model.add_adapter("default", config)
        model.set_adapter("default")
        assert torch.equal(logits(shake(model)), expected)

    @pytest.mark.parametrize("call", ["delete_adapter", "set_adapter"])
    def test_an_unknown_name_is_an_error(self, config, call):
        model = peft.get_peft_model(build("llama"), config)
        with pytest.raises(ValueError, match="nosuch"):
            getattr(model, call)("nosuch")

    def test_a_name_that_is_taken_is_refused(self, config):
        model = shake(peft.get_peft_model(build("llama"), config))
        expected = logits(model)
        with pytest.raises(ValueError, match="already exists"):
            model.add_adapter("default", config)
        assert torch.equal(logits(model), expected)

    @pytest.mark.parametrize("trainable", [False, True])
    def test_loading_asks_for_gradients_only_where_told(self, config, trainable, tmp_path):
        peft.get_peft_model(build("llama"), config).save_pretrained(tmp_path)
        model = peft.PeftModel.from_pretrained(build("llama"), tmp_path, is_trainable=trainable)
        assert names_with_grad(model) == (own(model, "default") if trainable else set())
        model.load_adapter(tmp_path, "second")
        assert names_with_grad(model) == (own(model, "default") if trainable else set())
        assert torch.equal(logits(model), logits(build("llama")))


class TestDisabling:
    def test_is_exact_nests_and_ends(self, config):
        plain = logits(build("llama"))
        model = shake(peft.get_peft_model(build("llama"), config))
        adapted = logits(model)
        with model.disable_adapter():
            assert torch.equal(logits(model), plain)
            assert model.get_model_status().enabled is False
        assert torch.equal(logits(model), adapted)
        assert names_with_grad(model) == own(model, "default")
        model.base_model.disable_adapter_layers()
        with model.disable_adapter():
            assert torch.equal(logits(model), plain)
        assert torch.equal(logits(model), plain)  # it was off before
        model.base_model.enable_adapter_layers()
        assert torch.equal(logits(model), adapted)

    def test_adds_no_balance_loss(self):
        model = shake(peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="3x2 2", aux_loss_weight=1.0))).train()
        with model.disable_adapter():
            torch.testing.assert_close(model(**batch()).loss, build("llama").train()(**batch()).loss)


class TestHeads:
    def test_two_heads_take_turns(self, tmp_path):
        model = peft.get_peft_model(build("bert"), MoeLoraConfig(allocation="2x2 0", task_type="SEQ_CLS"))
        model.add_adapter("second", MoeLoraConfig(allocation="0 2x2", task_type="SEQ_CLS"))
        with torch.no_grad():
            for number, head in enumerate(model.classifier.modules_to_save.values()):
                head.weight.fill_(number + 1)
        first = logits(model)
        model.set_adapter("second")
        second = logits(model)
        assert not torch.allclose(first, second)
        assert "base_model.model.classifier.modules_to_save.second.weight" in names_with_grad(model)
        assert "base_model.model.classifier.modules_to_save.default.weight" not in names_with_grad(model)
        model.save_pretrained(tmp_path)
        loaded = peft.PeftModel.from_pretrained(build("bert"), tmp_path)
        torch.testing.assert_close(logits(loaded), first)
        loaded.load_adapter(tmp_path / "second", "second")
        loaded.set_adapter("second")
        torch.testing.assert_close(logits(loaded), second)
        with pytest.raises(ValueError, match="Only one adapter"):
            model.base_model.set_adapter(["default", "second"])

    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_a_linear_is_trained_whole_or_carries_experts(self, family, tmp_path):
        saved = "up_proj" if family == "llama" else "c_fc"
        base = build(family)
        for router, plan in (("topk", "3x2*2"), ("sigmoid", "attn:2,down:2*2")):
            config = MoeLoraConfig(allocation=plan, modules_to_save=[saved], router=router)
            model = shake(peft.get_peft_model(build(family), config))
            whole = [name for name, module in model.named_modules() if name.endswith(f"{saved}.modules_to_save.default")]
            assert len(whole) == 2
            assert not any(isinstance(model.get_submodule(name), MoeLoraLinear) for name in whole)
            model.add_adapter("second", config)  # finds the linear wrapped already
            with torch.no_grad():
                for name in whole:
                    model.get_submodule(name).weight.normal_()
            expected = logits(model)
            assert not torch.allclose(expected, logits(base))
            model.save_pretrained(tmp_path / router, selected_adapters=["default"])
            torch.testing.assert_close(logits(peft.PeftModel.from_pretrained(build(family), tmp_path / router)), expected)
