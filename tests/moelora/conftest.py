"""Tiny models of several families, made from configs."""

from collections import defaultdict

import pytest
import torch
import transformers

from allocsearch.core.geometry import ModelShape, Site
from allocsearch.core.targets import locate
from allocsearch.moelora import MoeLoraConfig
from allocsearch.moelora.layer import linear_features

VOCABULARY = 61


def pytest_collection_modifyitems(items):
    # PEFT reads a property of transformers models that transformers 5 has renamed; nothing that this package can change.
    for item in items:
        if "moelora" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"))


def build(family, *, num_layers=2, seed=0, **changes):
    """A randomly initialised model of `family` with hidden size 16."""
    torch.manual_seed(seed)
    common = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": num_layers, "num_attention_heads": 4}
    ffn = {"intermediate_size": 24}
    if family == "llama":
        config = transformers.LlamaConfig(**common, **ffn, num_key_value_heads=2, pad_token_id=0, **changes)
        return transformers.LlamaForCausalLM(config)
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=num_layers, n_head=4, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
            bos_token_id=1, eos_token_id=2, **changes,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config)
    if family == "bert":
        config = transformers.BertConfig(**common, **ffn, hidden_dropout_prob=0, attention_probs_dropout_prob=0, num_labels=3, **changes)
        return transformers.BertForSequenceClassification(config)
    if family == "neox":
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**common, **ffn, **changes))
    if family == "phi3":
        config = transformers.Phi3Config(**common, **ffn, num_key_value_heads=2, pad_token_id=0, **changes)
        return transformers.Phi3ForCausalLM(config)
    raise ValueError(family)


FAMILIES = ("llama", "gpt2", "bert", "neox", "phi3")


def batch(*, rows=3, length=7, seed=0, padding="right"):
    """Token ids with labels, the last row half padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    if padding == "right":
        mask[-1, length // 2 :] = 0
    elif padding == "left":
        mask[-1, : length // 2] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


@torch.no_grad()
def shake(model, *, seed=1, scale=0.3):
    """Give every adapter parameter (B starts at zero) random values."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "moelora_" in name:
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype))
    return model


def shape(model):
    """The `ModelShape` of a model of `build`, read off its modules."""
    layers = defaultdict(list)
    stack = ""
    for name, module in model.named_modules():
        location = locate(name)
        if location is not None:
            d_in, d_out = linear_features(module)
            layers[location.layer].append(Site(location.target, location.group, d_in, d_out, location.path))
            stack = location.stack
    return ModelShape(type(model).__name__, tuple(tuple(layers[i]) for i in range(len(layers))), 16, 4, model.num_parameters(), stack)


def router_parts(router):
    """A block router's matrices with their biases, under the names that the reference takes."""
    h, n = router.hidden, len(router.spec.experts)
    split = (router.inner, router.inner_bias)
    parts = {"w1": tuple(part[: h or n] for part in split)}
    if h:
        parts |= {"w3": tuple(part[h : 2 * h] for part in split), "w2": (router.outer, router.outer_bias)}
    if router.spec.sparse:
        parts["threshold"] = tuple(part[-1] for part in split)
    return parts


FORMS = {
    "topk": {"allocation": "3x2 2+1"},
    "dense": {"allocation": "3x2 2+1", "router": "dense"},
    "one expert": {"allocation": "3 2"},
    "sigmoid": {"allocation": "q:2,down:2,parallel:3,prompt:2*2", "router": "sigmoid"},
    "threshold": {"allocation": "q:2,down:2,parallel:3*2", "router": "threshold"},
}


@pytest.fixture(params=FORMS)
def config(request):
    """An adapter of every form on a model of two layers."""
    return MoeLoraConfig(**FORMS[request.param], task_type="CAUSAL_LM")


@torch.no_grad()
def logits(model):
    return model.eval()(**{name: value for name, value in batch().items() if name != "labels"}).logits


def own(model, adapter):
    """Names of an adapter's parameters."""
    return {name for name, _ in model.named_parameters() if "moelora_" in name and adapter in name.split(".")}
