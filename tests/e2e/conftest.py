"""A tiny random language model and task, so that the whole walk of a run takes seconds; and the command line as a process."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>").save_pretrained(folder)
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
            **overrides,
        }
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    return write


@pytest.fixture
def tiny_study(tmp_path, write_study):
    """The same, in the test's own folder."""
    return lambda **overrides: write_study(tmp_path / "study.yaml", **overrides)


class Cli:
    """The command line with a home folder of its own: in this process where that will do, as a process where it must be one."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.env = {**os.environ, "ALLOCSEARCH_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        self.env.pop("ALLOCSEARCH_STORAGE", None)

    def start(self, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "allocsearch", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.env, cwd=self.home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def process(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return self._checked(process.returncode, out, err, code)

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        from allocsearch.cli import main

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", ["allocsearch", *map(str, arguments)])
            patch.setenv("ALLOCSEARCH_HOME", str(self.home))
            patch.setenv("HF_HUB_OFFLINE", "1")
            patch.delenv("ALLOCSEARCH_STORAGE", raising=False)
            patch.chdir(self.home)
            with pytest.raises(SystemExit) as stop:
                main()
        return self._checked(stop.value.code, out.getvalue(), err.getvalue(), code)

    def json(self, *arguments: object) -> dict:
        return json.loads(self(*arguments, "--json").stdout)

    @staticmethod
    def _checked(found: object, out: str, err: str, code: int) -> subprocess.CompletedProcess:
        assert found == code, f"exit code {found}\n{out}\n{err}"
        assert "Traceback" not in out + err
        return subprocess.CompletedProcess([], code, out, err)


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path / "home")
