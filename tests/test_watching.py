"""A study watched from elsewhere: a line per change in a pipe, a drawing on a terminal that q and Ctrl-C leave as they found it."""

import io
import os
import subprocess
import sys
import termios
from dataclasses import replace

import pytest
from rich.console import Console

from allocsearch import terminal, watching
from allocsearch.backends.catalog import Catalog
from allocsearch.search.results import pareto
from tests.e2e.conftest import Cli

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def cli(tmp_path_factory, write_study):
    found = Cli(tmp_path_factory.mktemp("watched") / "home")
    found("run", write_study(found.home / "study.yaml", trials=2), "--inline")
    return found


@pytest.fixture(scope="module")
def whole(cli):
    return Catalog(f"sqlite:///{cli.home}/studies.db").record("tiny")


@pytest.fixture(scope="module")
def half(whole):
    return replace(whole, trials=whole.trials[:1])


@pytest.fixture
def keyboard(monkeypatch):
    """A terminal for stdin; what is written to it was typed."""
    master, slave = os.openpty()
    with os.fdopen(slave) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        yield master
    os.close(master)


@pytest.fixture
def screen(monkeypatch):
    drawn = io.StringIO()
    monkeypatch.setattr(terminal, "out", Console(file=drawn, force_terminal=True, width=200, color_system=None))
    return drawn


def test_a_pipe_gets_a_line_for_each_change(whole, half, capsys):
    empty = replace(whole, trials=())
    looks = iter([empty, half, half, half, whole])
    watching.watch(lambda: next(looks), lambda: pytest.fail("a line has no room for the front"), every=0.001)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 1)[1].split(",")[0] for line in lines] == ["tiny  0/2 done", "tiny  1/2 done", "tiny  2/2 done"]
    assert "no result yet" in lines[0]
    assert "best accuracy" in lines[1]
    assert lines[2].endswith("complete")


def test_q_ends_the_drawing_and_restores_the_keyboard(half, keyboard, screen):
    before = termios.tcgetattr(keyboard)

    def read():
        os.write(keyboard, b"xq")
        return half

    watching.watch(read, lambda: pareto(half.trials), every=300)
    assert termios.tcgetattr(keyboard) == before
    text = screen.getvalue()
    assert "1/2 done" in text
    assert "experts" in text
    assert str(half.trials[0].assignment.allocation) in text


def test_an_interrupt_passes_through_and_restores_the_keyboard(half, keyboard, screen):
    before = termios.tcgetattr(keyboard)
    looks = iter([half])

    def read():
        try:
            return next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        watching.watch(read, list, every=0.001)
    assert termios.tcgetattr(keyboard) == before
    assert "\x1b[?25h" in screen.getvalue(), "the cursor is shown again"


def test_the_front_is_read_again_when_something_has_ended(whole, half, keyboard, screen):
    looks, read = iter([half, half, half, whole]), []
    watching.watch(lambda: next(looks), lambda: read.append(1) or [], every=0.001)
    assert len(read) == 2


def test_the_command_ends_with_the_study_where_nobody_types(cli):
    """As under cron: stdin is open, and no terminal."""
    command = [sys.executable, "-m", "allocsearch", "status", "tiny", "--watch"]
    done = subprocess.run(command, env=cli.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().endswith("complete")


def test_what_the_command_needs_is_told(cli):
    assert "needs the name of a study" in cli("status", "--watch", code=2).stderr
    assert "--every" in cli("status", "tiny", "--watch", "--every", "0", code=2).stderr
    assert "leave one of them out" in cli("status", "tiny", "--watch", "--json", code=2).stderr


def test_a_pipe_gets_a_line_a_trial(cli):
    assert "experts" not in cli("compare", "tiny").stdout


def test_a_terminal_gets_the_shapes_of_allocations(cli, screen, whole):
    cli("compare", "tiny")
    assert screen.getvalue().count("experts") == len(whole.trials)
    cli("status", "tiny")
    assert screen.getvalue().count("experts") == len(whole.trials) + 1
