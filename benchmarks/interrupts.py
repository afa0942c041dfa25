"""How long Ctrl-C takes, seen from outside: a real `allocsearch run` on Ray, on a model of four small layers and SQLite.

    python benchmarks/interrupts.py --rounds 5 --workers 2

Each round starts or resumes the study, waits until a trial has ended and others are in training, and sends SIGINT. The first table row
of a round is from that signal to the release of the study's lease in the database, when another driver may go on, and to the
process's exit. With --twice a second SIGINT follows at once, and the time is from that one. At the end the study is resumed to its
target, and must hold exactly that number of finished trials, each allocation once.
"""

import argparse
import contextlib
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from allocsearch.workplace import versions

WORDS = ("<pad>", "<unk>", "<eos>", "good", "bad", "film", "plot", "great", "awful", "positive", "negative", "Review", ":")
_PATIENCE_SECONDS = 300


def make_model(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["input_ids", "attention_mask"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", model_input_names=names
    )
    fast.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=2, bos_token_id=None, **sizes)).save_pretrained(folder)


def write_study(folder: Path, *, trials: int) -> Path:
    make_model(folder / "model")
    document = {
        "schema": "allocsearch/study/v1", "name": "interrupted", "model": str(folder / "model"), "task": "sentence-polarity",
        "space": "hilo", "budget": "20K-params", "trials": trials, "warm_starts": [],
        "proxy": {"train_rows": 256, "search_rows": 64, "batch_size": 8, "epochs": 3, "dtype": "float32"},
        "replication": {"contenders": 0}, "confirmation": {"candidates": 0},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


class Home:
    """A home folder of its own, with the study's database in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "ALLOCSEARCH_HOME": str(folder), "HF_HUB_OFFLINE": "1"}

    def start(self, *arguments: object) -> subprocess.Popen:
        log = (self.folder / "log").open("ab")
        # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
        heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - one call, safe between fork and exec
        command = [sys.executable, "-m", "allocsearch", *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=heed)  # noqa: PLW1509

    def asked(self, query: str) -> float:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.folder}/studies.db?mode=ro", uri=True)) as database:
                return database.execute(query).fetchone()[0]
        except sqlite3.OperationalError:  # not there yet
            return 0

    def count(self, state: str) -> int:
        return int(self.asked(f"SELECT count(*) FROM trials WHERE state = '{state}'"))

    def is_free(self) -> bool:
        return not self.asked("SELECT max(expires_at) FROM allocsearch_leases")


def wait(condition, *, pause: float = 0.005) -> float:
    """Returns when it holds, by `time.perf_counter`."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the moment did not come"
        time.sleep(pause)
    return time.perf_counter()


def interrupted(home: Home, process: subprocess.Popen, *, twice: bool) -> tuple[float | None, float]:
    """Seconds from the (second) signal to the lease's release, where there is one, and to the exit."""
    before = home.count("COMPLETE")
    wait(lambda: home.count("COMPLETE") > before and home.count("RUNNING"), pause=0.05)
    process.send_signal(signal.SIGINT)
    if twice:
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    started = time.perf_counter()
    released = None if twice else wait(lambda: home.is_free() or process.poll() is not None) - started
    ended = wait(lambda: process.poll() is not None) - started
    assert process.returncode == 130, f"exit code {process.returncode}: {(home.folder / 'log').read_text()}"
    return released, ended


def assert_whole(home: Home, *, trials: int) -> None:
    assert home.start("resume", "interrupted", "--inline").wait(_PATIENCE_SECONDS) == 0, (home.folder / "log").read_text()
    different = "SELECT count(DISTINCT value_json) FROM trial_user_attributes WHERE key = 'allocation'"
    found = (home.count("COMPLETE"), int(home.asked("SELECT count(*) FROM trials")), int(home.asked(different)))
    assert found == (trials,) * 3, found
    assert "Traceback" not in (home.folder / "log").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--twice", action="store_true", help="press Ctrl-C again at once")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {versions()}")
    print("| round | load | s to the release of the lease | s to the exit |\n|---|---:|---:|---:|")
    ends = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, study = Home(Path(folder)), write_study(Path(folder), trials=options.trials)
        for round_ in range(options.rounds):
            what = ("resume", "interrupted") if round_ else ("run", study)
            process = home.start(*what, "--workers", options.workers)
            released, ended = interrupted(home, process, twice=options.twice)
            ends.append(ended)
            print(f"| {round_} | {os.getloadavg()[0]:.1f} | {'' if released is None else f'{released:.2f}'} | {ended:.2f} |", flush=True)
        print(f"median to the exit {statistics.median(ends):.2f} s, longest {max(ends):.2f} s")
        assert_whole(home, trials=options.trials)


if __name__ == "__main__":
    main()
