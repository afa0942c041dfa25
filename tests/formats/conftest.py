"""Tiny Llamas, and adapters in MoLA's own layout with the forward pass that its code gives them."""

import json

import pytest
import torch
import transformers
from torch import nn

TARGETS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def pytest_collection_modifyitems(items):
    # PEFT reads a property of transformers models that transformers 5 has renamed; nothing that this package can change.
    for item in items:
        if "formats" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"))


def llama(*, num_layers=4, seed=0, hidden=16):
    """A random Llama, the same for one seed."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=hidden, intermediate_size=24, num_hidden_layers=num_layers, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def token_ids(*, rows=2, length=5, seed=0):
    return torch.randint(3, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


class MolaLoop(nn.Module):
    """One adapted linear as MoLA's paper states it: each token through its best experts, one after the other."""

    def __init__(self, linear, tensors, *, scaling, top_k):
        super().__init__()
        self.linear, self.tensors, self.scaling, self.top_k = linear, tensors, scaling, top_k

    def forward(self, x):
        y = self.linear(x).flatten(0, -2)
        tokens = x.flatten(0, -2)
        for t, token in enumerate(tokens):
            weights = torch.softmax(self.tensors["router"] @ token, dim=0)
            chosen = weights.topk(self.top_k).indices.tolist()
            total = sum(weights[i] for i in chosen)
            for i in chosen:
                y[t] += weights[i] / total * self.scaling * (self.tensors[f"B{i}"] @ (self.tensors[f"A{i}"] @ token))
        return y.view(*x.shape[:-1], -1)


def mola_parts(model, *, counts, ranks, targets=TARGETS, seed=1):
    """Random experts and routers by linear; MoLA gives a layer with one expert a router too."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return 0.3 * torch.randn(shape, generator=generator)

    parts = {}
    for layer, (count, rank) in enumerate(zip(counts, ranks, strict=True)):
        for target in targets:
            linear = model.get_submodule(f"model.layers.{layer}.{target}")
            tensors = {"router": draw(count, linear.in_features)}
            for i in range(count):
                tensors |= {f"A{i}": draw(rank, linear.in_features), f"B{i}": draw(linear.out_features, rank)}
            parts[f"model.layers.{layer}.{target}"] = tensors
    return parts


def mola_tensors(parts):
    """Under the names that MoLA's code saves them."""
    found = {}
    for name, tensors in parts.items():
        for key, tensor in tensors.items():
            tail = "router.router" if key == "router" else f"lora_{key[0]}_{key[1:]}"
            found[f"base_model.model.{name}.{tail}.weight"] = tensor
    return found


def mola_logits(model, parts, ids, *, ranks, top_k, alpha=16):
    """What MoLA's code would compute: `model` with a loop on each linear. It changes `model`."""
    for name, tensors in parts.items():
        layer = int(name.split(".")[2])
        wrapped = MolaLoop(model.get_submodule(name), tensors, scaling=alpha / ranks[layer], top_k=top_k[layer])
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, wrapped)
    with torch.no_grad():
        return model(ids).logits


def write_config(folder, *, ranks, **changes):
    document = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": list(ranks), "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**document, **changes}))
