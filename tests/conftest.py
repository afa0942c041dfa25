"""Fixtures that more than one test file uses."""

import json
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # each process that runs tests has a core of its own; read when PyTorch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ["RAY_AUTH_MODE"] = "disabled"  # or sessions would take the token that a home folder happens to have, and some would not

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, settings

from tests.chromium import chromium, visit  # noqa: F401 - fixtures
from tests.postgres import postgres, postgres_url  # noqa: F401 - fixtures
from tests.s3 import s3  # noqa: F401 - a fixture

# Shared cores make a deadline a source of noise (pytest's own timeout stops what hangs), and what must hold before a change lands
# must not depend on a random seed: there the examples are always the same.
settings.register_profile(
    "laws",
    deadline=None,
    max_examples=80,
    derandomize="CI" in os.environ,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("laws")


@pytest.fixture(autouse=True, scope="session")
def _shared_folders(tmp_path_factory):
    """A test's study may name what other fixtures wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLOCSEARCH_FOLDERS", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="session")
def smollm2():
    """Folder of the built-in SmolLM2-135M, pulled once per machine; for tests marked `slow`."""
    cache = Path(os.environ.get("ALLOCSEARCH_TEST_HOME", "~/.cache/allocsearch-tests")).expanduser()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLOCSEARCH_HOME", str(cache))
        from allocsearch.model_store import pull

        yield pull("smollm2-135m")


WORDS = ["good", "bad", "film", "plot", "great", "awful", "the", "a", "is", "was", "Review", "Sentiment", ":", "positive", "negative"]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a random Llama of four layers with a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "model"
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "<eos>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>", "model_input_names": ["input_ids", "attention_mask"]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_rows(tmp_path_factory):
    """A JSONL file of separable rows."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = []
    for i in range(400):
        label = i % 2
        words = [WORDS[(i * 7 + j) % 10] for j in range(4)] + [["awful", "bad"][i % 2], ["great", "good"][label]][label : label + 1]
        rows.append({"text": " ".join([*words, str(i)]), "label": label})
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_study(tiny_model, tiny_rows):
    """Writes a study on the tiny model to a path; keyword arguments override top-level keys."""

    def write(path, **overrides):
        document = {
            "schema": "allocsearch/study/v1",
            "name": "tiny",
            "model": str(tiny_model),
            "task": {
                "name": "tiny-reviews",
                "path": str(tiny_rows),
                "template": "Review : {text} Sentiment :",
                "choices": ["negative", "positive"],
                "label_column": "label",
            },
            "space": "hilo",
            "budget": "20K-params",
            "trials": 6,
            "warm_starts": ["uniform", "lora"],
            "proxy": {"train_rows": 32, "search_rows": 24, "batch_size": 8, "dtype": "float32"},
            "replication": {"contenders": 0},
            "confirmation": {"candidates": 0},
            **overrides,
        }
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    return write
