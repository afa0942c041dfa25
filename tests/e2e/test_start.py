"""Commands that only look must answer at once: none of them imports what takes seconds, and those that must say so first."""

import shutil
import subprocess
import sys

HEAVY = ("torch", "transformers", "peft", "ray", "datasets", "lm_eval")

# In one process, as each costs an interpreter and Optuna.
LOOK = """
import contextlib, io, sys
from allocsearch.cli import main
for words in {commands}:
    sys.argv = ["allocsearch", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main()
    found = [name for name in {heavy} if name in sys.modules]
    assert not found, (words, found)
    assert "loading" not in said.getvalue(), words
for words in {sent}:
    sys.argv = ["allocsearch", *words, "--submit", "http://127.0.0.1:1"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main()
    assert "torch" not in sys.modules, words
    assert said.getvalue().splitlines()[-1].startswith("error: "), (words, said.getvalue())
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
    sys.argv = ["allocsearch", "cost", "--model", "smollm2-135m", "--allocation", "4x8*30", "--json"]
    main()
assert said.getvalue() == "loading PyTorch and transformers\\n", said.getvalue()
"""


def test_commands_that_only_look_import_nothing_heavy(cli, tiny_study):
    cli("run", tiny_study(trials=2), "--inline")
    shutil.copy(tiny_study(), cli.home)
    (cli.home / "typo.yaml").write_text("budjet: 1")
    names = ["status", "front", "compare"]
    shown = [[name, "tiny", *more] for name in names for more in ([], ["--json"])]
    plain = [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["status"],
        ["spaces"],
        ["studies"],
        ["models"],
        ["validate", "--schema", "list"],
    ]
    wrong = [
        ["front", "tinny"],
        ["export", "tinny"],
        ["run", "quickstrat"],
        ["run", "--budget", "8M"],
        ["run", "typo.yaml"],
        ["train", "x"],
        ["run", "study.yaml", "--inline", "--submit", "http://127.0.0.1:1"],
        ["calibrate", "study.yaml", "--json", "--submit", "http://127.0.0.1:1"],
    ]
    # Ray's client is all that a command to be sent may load.
    sent = [["run", "study.yaml", "--margin", "1"], ["resume", "tiny"], ["confirm", "tiny"]]
    commands = [*plain, *shown, ["report", "tiny"], *wrong]
    script = LOOK.format(commands=commands, sent=sent, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], env=cli.env, cwd=cli.home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (cli.home / "tiny.html").is_file()
