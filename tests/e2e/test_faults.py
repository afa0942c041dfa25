"""Deaths in the middle, with real processes, real Ray and SIGKILL."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import time

import optuna
import psutil
import pytest

from allocsearch.backends.inline_executor import InlineExecutor

TRIALS = 8
# Long enough that a kill falls into training, short enough for a test.
PROXY = {"train_rows": 64, "search_rows": 48, "batch_size": 8, "epochs": 6, "dtype": "float32"}
STEPS = 6 * 64 // 8


@pytest.fixture
def study_path(tiny_study):
    return tiny_study(trials=TRIALS, proxy=PROXY)


def trials(cli):
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{cli.home}/studies.db").trials


def wait_for(condition, *, seconds=300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("the moment to strike did not come")


def asked(cli, query, *values):
    """Asked of the file itself: Optuna would make the tables that it misses, at the same time as the driver. 0 before there are any."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{cli.home}/studies.db?mode=ro", uri=True)) as database:
            return database.execute(query, values).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def num_complete(cli):
    return asked(cli, "SELECT count(*) FROM trials WHERE state = 'COMPLETE'")


def assert_whole(cli):
    found = trials(cli)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * TRIALS
    assert len({trial.user_attrs["allocation"] for trial in found}) == TRIALS
    return found


def kill_session(process):
    """The driver alone is killed; what it leaves of Ray is cleared away, as a restarted machine would."""
    leftovers = [child for child in psutil.process_iter(["pid"]) if _session_of(child.pid) == process.pid and child.pid != process.pid]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return leftovers


def _session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def test_a_killed_driver_loses_nothing_and_resume_reaches_the_target_exactly(cli, study_path):
    process = cli.start("run", study_path, "--workers", 2)
    wait_for(lambda: num_complete(cli) >= 2)
    leftovers = kill_session(process)
    before = trials(cli)
    done = {trial.number: (trial.values, trial.datetime_complete) for trial in before if trial.state.name == "COMPLETE"}
    assert 2 <= len(done) < TRIALS
    assert any(trial.state.name == "RUNNING" for trial in before)
    cli.process("resume", "tiny", "--workers", 2)
    found = assert_whole(cli)
    assert {number: (found[number].values, found[number].datetime_complete) for number in done} == done, "a finished trial was run again"
    orphans = [trial.number for trial in before if trial.state.name == "RUNNING"]
    assert all(found[number].user_attrs["attempt"] == 2 for number in orphans)
    _, alive = psutil.wait_procs(leftovers, timeout=60)
    assert not alive, "Ray outlived its driver"


def kept_steps(cli):
    """How far the checkpoints of the trials under way are."""
    steps = {}
    for file in cli.home.glob("artifacts/**/*.checkpoint.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # safetensors itself opens a file twice, between which it may be replaced
            stored = file.read_bytes()
            header = json.loads(stored[8 : 8 + int.from_bytes(stored[:8], "little")])
            steps[int(file.name.partition(".")[0].rpartition("-")[2])] = int(header["__metadata__"]["step"])
    return steps


def kill_the_workers(process):
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.cmdline()[0].startswith("ray::ResourceTrainable"):
                child.kill()


def test_killed_workers_cost_a_retry_each_which_goes_on_from_where_they_were(cli, tiny_study):
    process = cli.start("run", tiny_study(trials=TRIALS, proxy=PROXY, limits={"checkpoint_seconds": 0}), "--workers", 2)
    at_death = wait_for(lambda: {number: step for number, step in kept_steps(cli).items() if step >= STEPS // 4})
    kill_the_workers(process)
    while process.poll() is None:
        for number, step in kept_steps(cli).items():
            assert step >= at_death.get(number, 0), "a trial began anew"
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert "Traceback" not in out + err
    found = assert_whole(cli)
    assert 1 <= sum(trial.user_attrs.get("losses", 0) for trial in found) <= 2
    assert {found[number].user_attrs["attempt"] for number in at_death} <= {1, 2}
    assert any(found[number].user_attrs["attempt"] == 2 for number in at_death)


def test_an_interrupted_driver_says_how_to_go_on(cli, study_path):
    process = cli.start("run", study_path, "--workers", 2)
    wait_for(lambda: num_complete(cli) >= 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "allocsearch resume tiny" in err
    assert "Traceback" not in err
    hurried = cli.start("resume", "tiny", "--workers", 2)
    before = num_complete(cli)
    wait_for(lambda: num_complete(cli) > before)
    hurried.send_signal(signal.SIGINT)
    assert any("Ctrl-C again leaves at once" in line for line in hurried.stderr)
    hurried.send_signal(signal.SIGINT)
    _, err = hurried.communicate(timeout=60)
    assert hurried.returncode == 130, err
    assert "Traceback" not in err
    cli.process("resume", "tiny", "--inline")
    assert_whole(cli)


def test_a_failure_while_an_interrupted_run_is_cleared_away_does_not_hide_the_interrupt(cli, study_path, monkeypatch):
    original = InlineExecutor.run

    def run(executor, study, evaluator, *, scheduler=None):
        trials = original(executor, study, evaluator, scheduler=scheduler)
        try:
            yield next(trials)
            raise KeyboardInterrupt
        finally:
            trials.close()
            raise ConnectionError("the engine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(InlineExecutor, "run", run)
        result = cli("run", study_path, "--inline", code=130)
    assert "interrupted; everything is kept. Continue with: allocsearch resume tiny" in result.stderr
    assert num_complete(cli) == 1


def test_a_second_driver_is_refused_while_the_first_lives(cli, study_path):
    process = cli.start("run", study_path, "--inline")
    wait_for(lambda: num_complete(cli) >= 1)
    refused = cli("resume", "tiny", "--inline", code=2)
    assert cli.json("status", "tiny")["driver"] == f"process {process.pid} on {socket.gethostname()}"
    assert f"process {process.pid} on {socket.gethostname()} is running 'tiny'" in refused.stderr
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert_whole(cli)


def test_a_driver_that_slept_through_its_lease_changes_nothing_when_it_wakes(cli, study_path):
    cli.env["ALLOCSEARCH_LEASE_SECONDS"] = "2"
    sleeper = cli.start("run", study_path, "--inline")
    # Within a training: in the middle of a write it would hold the file's lock.
    wait_for(lambda: num_complete(cli) >= 1 and asked(cli, "SELECT count(*) FROM trials WHERE state = 'RUNNING'"))
    sleeper.send_signal(signal.SIGSTOP)
    wait_for(lambda: asked(cli, "SELECT expires_at < (julianday('now') - 2440587.5) * 86400 FROM allocsearch_leases"))
    cli("resume", "tiny", "--inline")
    found = assert_whole(cli)
    sleeper.send_signal(signal.SIGCONT)
    out, err = sleeper.communicate(timeout=300)
    assert sleeper.returncode == 5, out + err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "only the driver that holds a study may write to it" in line
    assert "Traceback" not in out + err
    assert trials(cli) == found


@pytest.mark.parametrize("moment", ["replicas", "random", "confirmation"])
def test_a_driver_killed_after_the_search_loses_nothing_of_what_follows(cli, tiny_study, moment):
    def done(kind):
        query = "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE state = 'COMPLETE' AND study_name = ?"
        return asked(cli, query, f"tiny/{kind}" if kind else "tiny")

    wanted = {"replication": {"contenders": 2, "max_seeds": 3}, "confirmation": {"candidates": 2, "seeds": 2, "random_trials": 3}}
    path = tiny_study(trials=3, proxy={**PROXY, "epochs": 2}, **wanted)
    process = cli.start("run", path, "--inline")
    wait_for(lambda: done(moment) >= 1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not cli.json("status", "tiny")["complete"]
    cli("resume", "tiny", "--inline")
    assert cli.json("status", "tiny")["complete"]
    assert (done(""), done("random")) == (3, 3)
    confirmed = optuna.load_study(study_name="tiny/confirmation", storage=f"sqlite:///{cli.home}/studies.db").trials
    work = [(trial.user_attrs["allocation"], *trial.user_attrs["seeds"]) for trial in confirmed]
    assert {trial.state.name for trial in confirmed} == {"COMPLETE"}
    assert len(set(work)) == len(work), "nothing is trained twice"
    assert len(work) == 2 * len({allocation for allocation, _ in work})
