"""Tiny models of several families, made from configs."""

import pytest
import torch
import transformers

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
