"""Every command answers a mistake in one line with the remedy and the documented exit code."""

import pytest

from tests.commands import commands

REFUSED = {
    "run": (["--budget", "8M"], "did you mean 8M-params?"),
    "resume": (["nobody"], "it has none yet: allocsearch run"),
    "confirm": (["nobody", "--seeds", "0"], "see allocsearch confirm --help"),
    "calibrate": (["quickstrat"], "did you mean 'quickstart'"),
    "status": (["--watch"], "--watch needs the name of a study"),
    "front": (["nobody"], "it has none yet: allocsearch run"),
    "compare": (["nobody", "--metric", "speed"], "'speed' is not one of 'accuracy', 'nll'"),
    "export": (["nobody", "--format", "xml"], "'xml' is not one of 'yaml'"),
    "report": (["nobody"], "it has none yet: allocsearch run"),
    "train": (["missing.yaml"], "allocsearch export NAME -o best.yaml"),
    "evaluate": (["missing"], "see allocsearch train --help"),
    "cost": (["--model", "smollm2-135m", "--allocation", "4x8"], "4x8*30"),
    "spaces": (["hilo"], "see allocsearch spaces --help"),
    "studies": (["--jsn"], "--json"),
    "models": (["--jsn"], "--json"),
    "models pull": (["smolm2"], "smollm2-135m"),
    "validate": ([], "validate needs a FILE"),
    "doctor": (["--adress", "auto"], "--address"),
    "dashboard": (["--port", "x"], "see allocsearch dashboard --help"),
    "db": (["chek"], "check"),
    "db check": (["--storage", "studies.db"], "sqlite:///studies.db"),
    "db upgrade": (["--storage", "studies.db"], "sqlite:///studies.db"),
}


@pytest.mark.parametrize("command", [name for name in commands() if name])
def test_a_mistake_at_every_command_gives_one_line(cli, command):
    words, hint = REFUSED[command]
    refused = cli(*command.split(), *words, code=2)
    lines = [line for line in refused.stderr.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert hint in lines[0]
    assert refused.stdout == ""
