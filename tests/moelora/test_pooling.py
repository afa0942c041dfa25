"""Mean pooling in the place of a pooler: what it computes, whose adapter it serves, and that it goes."""

import copy

import peft
import pytest
import torch

from allocsearch.core.errors import InputError
from allocsearch.moelora import MoeLoraConfig
from tests.moelora.conftest import batch, build, logits, shake


def adapted(base, **settings):
    return shake(peft.get_peft_model(base, MoeLoraConfig(allocation="2x2 3+1", task_type="SEQ_CLS", **settings)))


@torch.no_grad()
def by_hand(model):
    """The head on the mean of the last layer's tokens that are not padding."""
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    classifier = model.eval().get_base_model()
    tokens = classifier.bert(**inputs).last_hidden_state
    means = [row[keep].mean(dim=0) for row, keep in zip(tokens, inputs["attention_mask"].bool(), strict=True)]
    return classifier.classifier(torch.stack(means))


def test_the_head_reads_the_mean_of_the_tokens_that_are_not_padding():
    model = adapted(build("bert"), pooling="mean")
    torch.testing.assert_close(logits(model), by_hand(model))


def test_padding_changes_nothing():
    model = adapted(build("bert"), pooling="mean").eval()
    ids = batch()["input_ids"][:1]
    padded = torch.nn.functional.pad(ids, (0, 4))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 4))
    with torch.no_grad():
        alone = model(input_ids=ids).logits
        torch.testing.assert_close(model(input_ids=padded, attention_mask=mask).logits, alone)


def test_it_is_saved_and_loaded_with_the_adapter(tmp_path):
    model = adapted(build("bert"), pooling="mean")
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(build("bert"), tmp_path)
    assert torch.equal(logits(loaded), logits(model))


def test_it_serves_its_own_adapter_only_and_not_the_disabled_model():
    base = build("bert")
    plain = logits(base)
    model = adapted(base, pooling="mean")
    mean = logits(model)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), plain)
    model.add_adapter("first", MoeLoraConfig(allocation="1 1", task_type="SEQ_CLS"))
    model.set_adapter("first")
    torch.testing.assert_close(logits(model), plain)  # new experts add nothing
    model.set_adapter("default")
    torch.testing.assert_close(logits(model), mean)


def test_unloading_takes_it_off():
    base = build("bert")
    head = copy.deepcopy(base.classifier)
    plain = logits(base)
    unloaded = adapted(base, pooling="mean").unload()
    unloaded.classifier = head  # PEFT leaves the trained one
    torch.testing.assert_close(logits(unloaded), plain)
    assert not unloaded.bert.pooler._forward_hooks
    assert not unloaded.bert._forward_pre_hooks


def test_what_it_cannot_pool_is_refused():
    with pytest.raises(InputError, match="needs a classifier with a pooler, but LlamaForCausalLM has none"):
        peft.get_peft_model(build("llama"), MoeLoraConfig(allocation="1 1", pooling="mean"))
    with pytest.raises(InputError, match="`pooling` must be one of first, mean, but got 'max'"):
        MoeLoraConfig(allocation="1 1", pooling="max")
