"""Training: one expert is PEFT's LoRA, and Trainer's gradient accumulation equals the big batch."""

import peft
import pytest
import torch
import transformers

from allocsearch.moelora import MoeLoraConfig
from tests.moelora.conftest import batch, build, shake


def losses(model, *, steps=20):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    values = []
    model.train()
    for step in range(steps):
        loss = model(**batch(seed=step % 4)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    return values


def test_one_expert_a_layer_trains_as_peft_lora():
    lora = peft.get_peft_model(
        build("llama").double(),
        peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
    ).double()
    ours = peft.get_peft_model(build("llama").double(), MoeLoraConfig(allocation="4*2", lora_alpha=16)).double()
    copied = 0
    modules = dict(lora.named_modules())
    for name, module in ours.named_modules():
        if hasattr(module, "expert_tensors"):
            ((a, b),), router = module.expert_tensors("default")
            assert router is None
            with torch.no_grad():
                a.copy_(modules[name].lora_A["default"].weight)
                b.copy_(modules[name].lora_B["default"].weight)
            copied += 1
    assert copied == 14
    expected = losses(lora)
    assert expected[-1] < expected[0]
    assert losses(ours) == pytest.approx(expected, rel=1e-9)


def train(folder, *, micro, steps, **settings):
    model = peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="3x2 2x2", task_type="CAUSAL_LM", **settings))
    shake(model, scale=0.1)
    rows = batch(rows=8 * steps)
    data = [{name: value[i] for name, value in rows.items()} for i in range(8 * steps)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=micro, gradient_accumulation_steps=8 // micro, max_steps=steps,
        learning_rate=0.1, optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0, report_to=[],
        save_strategy="no", logging_strategy="steps",
        logging_steps=1, disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=0, data_seed=0,
    )  # fmt: skip
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}, trainer.state.log_history


def test_trainer_accumulates_to_the_big_batch(tmp_path):
    big, _ = train(tmp_path, micro=8, steps=3, aux_loss_weight=0.0)
    small, log = train(tmp_path, micro=2, steps=3, aux_loss_weight=0.0)
    for name, parameter in big.items():
        torch.testing.assert_close(parameter, small[name], rtol=1e-4, atol=1e-6)
    assert len([entry for entry in log if "loss" in entry]) == 3


def test_trainer_accumulates_the_balance_loss_once(tmp_path):
    # One layer is 1 when balanced, so with weight 100 the logged loss says how often it was counted.
    _, log = train(tmp_path, micro=2, steps=1, aux_loss_weight=100.0)
    _, plain = train(tmp_path, micro=2, steps=1, aux_loss_weight=0.0)
    _, whole = train(tmp_path, micro=8, steps=1, aux_loss_weight=100.0)
    extra = log[0]["loss"] - plain[0]["loss"]
    assert extra == pytest.approx(200, rel=0.3)
    assert extra == pytest.approx(whole[0]["loss"] - plain[0]["loss"], rel=0.05)
