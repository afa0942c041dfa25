"""The balance loss: its value by hand, what it adds to a loss, and its gradient under every kind of checkpointing."""

import peft
import pytest
import torch

from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraConfig, MoeLoraLinear, balance_loss
from tests.moelora.conftest import batch, build, shake
from tests.moelora.reference import mola_balance

WEIGHT = 0.5


def adapted(allocation="3x2 4x2", *, family="llama", base=None, **settings):
    settings = {"aux_loss_weight": WEIGHT, "task_type": "SEQ_CLS" if family == "bert" else "CAUSAL_LM"} | settings
    model = peft.get_peft_model((base or build(family)).double(), MoeLoraConfig(allocation=allocation, **settings))
    return shake(model.double()).train()


def expected_balance(model, inputs, *, top_k=2):
    """Σ over layers, computed from what each linear was given."""
    seen, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, MoeLoraLinear):
            handles.append(module.register_forward_hook(lambda m, args, _, name=name: seen.update({name: (m, args[0])})))
    model(**inputs)
    for handle in handles:
        handle.remove()
    mask = inputs.get("attention_mask")
    groups = {}
    for module, x in seen.values():
        place = module.placements["default"]
        router = module.moelora_in["default"][place.stack.total_rank :]
        if len(router):
            kept = x.reshape(-1, x.shape[-1])
            kept = kept if mask is None else kept[mask.reshape(-1).bool()]
            groups.setdefault(place.layer, {}).setdefault(len(router), []).append((kept, router))
    total = 0.0
    for sizes in groups.values():
        values = [(mola_balance(*zip(*members, strict=True), top_k=top_k), len(members)) for members in sizes.values()]
        total += sum(value * count for value, count in values) / sum(count for _, count in values)
    return total


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name, grad in first.items():
        torch.testing.assert_close(grad, second[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def assert_same(first, second):
    """Equal but for rounding: transformers computes its norms and losses in float32 whatever the model is in."""
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6, check_dtype=False)


@pytest.mark.parametrize("padding", ["left", "right", None])
@pytest.mark.parametrize("allocation", ["3x2 4x2", "attn:3x2,ffn:2+1 0", "2 attn:2x1,down:4x2"])
def test_value_against_the_formula(padding, allocation):
    model, inputs = adapted(allocation), batch(padding=padding)
    loss = model(**inputs).loss
    ours = balance_loss(model)
    assert_same(ours, expected_balance(model, inputs))
    model.base_model.model.eval()
    assert_same(loss, model(**inputs).loss + WEIGHT * ours)


def test_padding_content_does_not_matter():
    model, inputs = adapted(), batch(padding="left")
    model(**inputs)
    value = balance_loss(model)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 7)
    model(**inputs)
    torch.testing.assert_close(balance_loss(model), value)
    del inputs["attention_mask"]
    model(**inputs)
    assert not torch.isclose(balance_loss(model), value)


def test_perfect_balance_is_one_a_layer():
    model = adapted("4x2 attn:4x1,ffn:2x1", top_k=4)
    model(**batch())
    torch.testing.assert_close(balance_loss(model), torch.tensor(2.0, dtype=torch.float64))


def test_gradient_against_the_formula():
    model, inputs = adapted(), batch()
    model(**inputs)
    ours = gradients(model, balance_loss(model))
    theirs = gradients(model, expected_balance(model, inputs))
    (last,) = ours.keys() - theirs.keys()  # nothing that is balanced comes after the last linear's B
    assert not ours.pop(last).any()
    assert_equal_gradients(ours, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_checkpointing_gives_the_same_gradients(reentrant, family):
    inputs = batch()
    if family == "bert":
        inputs["labels"] = torch.tensor([0, 1, 2])
    plain, checkpointed = adapted(family=family), adapted(family=family)
    checkpointed.base_model.model.activation_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed.enable_input_require_grads()
    for accumulated in (1, 2):  # two passes before one backward pass: each must meet its own sums
        losses = []
        for model in (plain, checkpointed):
            passes = [model(**(inputs | {"input_ids": inputs["input_ids"].roll(i, 1)}), use_cache=False).loss for i in range(accumulated)]
            losses.append(gradients(model, sum(loss * (i + 1) for i, loss in enumerate(passes))))
        assert_equal_gradients(*losses, rtol=1e-6, atol=1e-9)
    without = adapted(family=family, aux_loss_weight=0.0)
    grads = gradients(without, without(**inputs).loss)
    assert any(not torch.allclose(grads[name], gradients(plain, plain(**inputs).loss)[name]) for name in grads)


def test_losses_of_a_training_loop_of_its_own():
    model, inputs = adapted(), batch()
    expected = gradients(model, model(**inputs).loss)
    out = model(**{name: value for name, value in inputs.items() if name != "labels"})
    assert out.loss is None
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())
    assert_equal_gradients(gradients(model, loss + WEIGHT * balance_loss(model)), expected, rtol=1e-4, atol=1e-6)
    tuples = model(**inputs, return_dict=False)
    assert_equal_gradients(gradients(model, tuples[0]), expected)


def test_costs_nothing_where_it_is_off():
    for settings in ({"aux_loss_weight": 0.0}, {"router": "dense"}):
        model = adapted(**settings)
        model(**batch())
        with pytest.raises(InputError, match="training forward pass"):
            balance_loss(model)
    model = adapted()
    model.eval()(**batch())
    with pytest.raises(InputError, match="training forward pass"):
        balance_loss(model)
    assert not model.base_model.model.eval()(**batch()).loss.grad_fn.name().startswith("Add")


def test_linears_without_a_choice_have_nothing_to_balance():
    model = adapted("2 3")
    loss = model(**batch()).loss
    assert balance_loss(model) == 0
    assert_same(loss, model.eval()(**batch()).loss)


def test_micro_batches_count_by_their_label_tokens():
    model, inputs = adapted(), batch(rows=4)
    whole = (inputs["labels"][:, 1:] != -100).sum()
    parts = [{name: value[rows] for name, value in inputs.items()} for rows in (slice(0, 1), slice(1, 4))]
    for num_items in (whole, int(whole)):
        for part in parts:
            share = (part["labels"][:, 1:] != -100).sum() / whole
            loss = model(**part, num_items_in_batch=num_items).loss
            extra = WEIGHT * share * balance_loss(model)
            model.eval()
            assert_same(loss, model(**part, num_items_in_batch=num_items).loss + extra)
            model.train()


def test_adapters_have_weights_of_their_own():
    model = adapted()
    model.add_adapter("second", MoeLoraConfig(allocation="2x1 3x1", aux_loss_weight=2.0, task_type="CAUSAL_LM"))
    shake(model.double())
    model.set_adapter("second")
    loss = model(**batch()).loss
    extra = 2.0 * balance_loss(model)
    assert_same(loss, model.eval()(**batch()).loss + extra)


def test_transformers_load_adapter_trains_with_it(tmp_path):
    adapted().save_pretrained(tmp_path)
    model = build("llama").double()
    model.load_adapter(str(tmp_path), is_trainable=True)
    loss = model.train()(**batch()).loss
    extra = WEIGHT * balance_loss(model)
    assert_same(loss, model.eval()(**batch()).loss + extra)
