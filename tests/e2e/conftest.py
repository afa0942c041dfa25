"""The command line, in this process and as a process of its own."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.schemas import check_output


@pytest.fixture
def tiny_study(tmp_path, write_study):
    """The same, in the test's own folder."""
    return lambda **overrides: write_study(tmp_path / "study.yaml", **overrides)


STORAGE = ("ALLOCSEARCH_STORAGE", "ALLOCSEARCH_STORAGE_FILE")


class Cli:
    """The command line with a home folder of its own: in this process where that will do, as a process where it must be one."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.env = {**os.environ, "ALLOCSEARCH_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        for name in STORAGE:
            self.env.pop(name, None)

    def start(self, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "allocsearch", *map(str, arguments)]
        return subprocess.Popen(
            command,
            env=self.env,
            cwd=self.home,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - the one call is safe between fork and exec
        )

    def process(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        return self._checked(arguments, process.returncode, out, err, code)

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        from allocsearch.cli import main

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", ["allocsearch", *map(str, arguments)])
            patch.setenv("ALLOCSEARCH_HOME", str(self.home))
            patch.setenv("HF_HUB_OFFLINE", "1")
            for name in STORAGE:
                patch.delenv(name, raising=False)
            patch.chdir(self.home)
            with pytest.raises(SystemExit) as stop:
                main()
        return self._checked(arguments, stop.value.code, out.getvalue(), err.getvalue(), code)

    def json(self, *arguments: object) -> dict:
        return json.loads(self(*arguments, "--json").stdout)

    @staticmethod
    def _checked(arguments: tuple, found: object, out: str, err: str, code: int) -> subprocess.CompletedProcess:
        assert found == code, f"exit code {found}\n{out}\n{err}"
        assert "Traceback" not in out + err
        if "--json" in arguments and out:
            check_output(arguments, out)
        return subprocess.CompletedProcess([], code, out, err)


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path / "home")


# Nothing of ours but the import: what someone who was handed the folder would write.
AFRESH = """
import json, sys, torch
import allocsearch.moelora
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
folder, base, rows = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(base)
right, nll = 0, 0.0
with torch.inference_mode():
    for prompt, choices, answer in rows:
        logits = model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
        ids = [tokenizer(" " + choice, add_special_tokens=False)["input_ids"] for choice in choices]
        assert all(len(one) == 1 for one in ids)
        scores = logits[[one[0] for one in ids]]
        right += int(scores.argmax()) == answer
        nll -= float(scores.log_softmax(0)[answer])
print(right / len(rows), nll / len(rows))
"""


def scored_afresh(cli: Cli, folder: Path, *, base: Path, rows: list, scratch: Path) -> tuple[float, float]:
    """Accuracy and NLL of an adapter on rows whose choices are single tokens, in a process that has only PEFT and the tuner."""
    (scratch / "rows.json").write_text(json.dumps([(row.prompt, row.choices, row.answer) for row in rows]))
    script = [sys.executable, "-W", "ignore", "-c", AFRESH, str(folder), str(base), str(scratch / "rows.json")]
    done = subprocess.run(script, check=True, env=cli.env, capture_output=True, text=True)
    accuracy, nll = map(float, done.stdout.split())
    return accuracy, nll
