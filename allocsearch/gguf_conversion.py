"""A quantised GGUF file, dequantised once and stored as safetensors, which load memory-mapped."""

import io
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from allocsearch.transformers_log import quiet


def convert(gguf_file: Path, target: Path, *, name: str) -> None:
    """Write the model of `gguf_file` to the folder `target`: bfloat16 safetensors, config and tokenizer.

    Args:
        gguf_file: a causal language model in a quantisation that transformers reads.
        target: an existing folder.
        name: what the stored config calls the model, instead of what the file's author wrote into it.
    """
    where = {"pretrained_model_name_or_path": gguf_file.parent, "gguf_file": gguf_file.name, "trust_remote_code": False}
    # The bar of the GGUF reader obeys no setting, so its stream is taken away while it reads.
    with quiet(), redirect_stderr(io.StringIO()):
        # float32 first: dequantised values are then rounded once, by the cast below.
        loaded = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**where)
        # Saving refuses a model whose config says that it is quantised, and it is not any more: build its class anew.
        settings = loaded.config.to_dict()
        settings.pop("quantization_config", None)
        config = type(loaded.config)(**settings)
        config._name_or_path = name  # noqa: SLF001 - the only place where transformers keeps it
        with torch.device("meta"):
            model = type(loaded)(config)
        model.load_state_dict(loaded.state_dict(), assign=True)
        model.tie_weights()
        model.to(torch.bfloat16).save_pretrained(target)
        tokenizer.save_pretrained(target)
