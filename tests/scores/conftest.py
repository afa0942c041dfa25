"""A tiny random language model with a few batches, some rows padded."""

import pytest
import torch
import transformers

from allocsearch.core.geometry import Routing
from allocsearch.models import shape_of
from allocsearch.scores.probe import Probe
from allocsearch.training.collate import EncodedExample, collate


def llama(*, num_layers=3, seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**{**sizes, "num_hidden_layers": num_layers, "pad_token_id": 0, **changes})
    return transformers.LlamaForCausalLM(config).requires_grad_(requires_grad=False).eval()


def batches(count=2, *, rows=4, seed=0):
    """Left-padded prompts of uneven lengths with one right completion each."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length):
        return tuple(torch.randint(3, 61, (length,), generator=generator).tolist())

    examples = [EncodedExample(ids(3 + number % 5), (ids(1), ids(1)), number % 2) for number in range(count * rows)]
    return tuple(collate(examples[start : start + rows], pad_id=0, gold_only=True) for start in range(0, len(examples), rows))


@pytest.fixture
def probe():
    model = llama()
    return Probe(model, shape_of(model), Routing(), batches())
