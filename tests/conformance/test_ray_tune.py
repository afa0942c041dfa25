"""What Ray Tune would keep, or leave behind, and must not."""

import gc
import os
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from allocsearch.search.schedule import halving
from tests.conformance.executor_cases import HALVING
from tests.conformance.toy import climb, evaluate, measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


@pytest.fixture
def executor(ray_session):
    from allocsearch.backends.ray_executor import RayExecutor
    from allocsearch.backends.ray_resources import Resources

    return RayExecutor(Resources(num_workers=2))


def endless(assignment, report):
    """All but trial 0 train on and on."""
    time.sleep(600 if assignment.number else 0)
    return measured(assignment)


def test_a_closed_run_waits_for_no_trial_and_leaves_nobody_who_would_still_call_ray(desk, executor):
    """Ray ends a process, with exit code 1, one of whose threads calls it when its session is over."""
    desk.create(trials=8, limits={"max_attempts": 5})
    study = desk.open()
    running = executor.run(study, endless)
    next(running)
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ray-tune"]
    assert [trial.number for trial in study.trials() if trial.outcome is not None] == [0]


def test_tune_forgets_the_trials_that_have_ended(desk, executor):
    """Or a study of weeks would fill the driver's memory with what the database knows."""
    from ray.tune.experiment import Trial

    study, held = desk.create(trials=12), []
    for _ in executor.run(study, evaluate):
        gc.collect()
        held.append(sum(type(found) is Trial for found in gc.get_objects()))
    assert len(study.trials()) == 12
    assert max(held) <= 6


@pytest.mark.parametrize("counted", ["0", "1"])
def test_a_trial_whose_node_was_taken_back_is_lost_to_the_study_and_not_tunes_to_run_again(executor, tmp_path, monkeypatch, counted):
    """On a real controller, with the error of a spot machine; where Tune does run it again, it must still know it."""
    from ray.exceptions import RayActorError
    from ray.train._internal.storage import StorageContext
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial
    from ray.tune.search import BasicVariantGenerator

    from allocsearch.backends.ray_forgetting import ForgetfulOrder

    assert os.environ["RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE"] == "1"
    monkeypatch.setenv("RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE", counted)
    storage = StorageContext(storage_path=str(tmp_path), experiment_dir_name="search", trial_dir_name="trial")
    Path(storage.trial_driver_staging_path).mkdir(parents=True, exist_ok=True)
    controller = TuneController(search_alg=BasicVariantGenerator(), scheduler=ForgetfulOrder(), storage=storage)
    old, struck = (Trial("__fake", stub=True, storage=storage) for _ in range(2))
    for trial in (old, struck):
        trial.create_placement_group_factory()
        controller.add_trial(trial)
        controller._set_trial_status(trial, Trial.RUNNING)
    controller._set_trial_status(old, Trial.TERMINATED)
    controller._process_trial_failure(struck, RayActorError(error_msg="taken back", preempted=True))
    assert struck.status == (Trial.ERROR if counted == "1" else Trial.PENDING)
    assert controller.get_trials() == [struck]


def test_a_worker_that_is_ready_after_the_others_were_ended_is_ended_too(monkeypatch):
    """Tune looks at its stopper once in a step, and starts workers later in it."""
    import ray

    from allocsearch.backends.ray_executor import _Actors

    killed = []
    monkeypatch.setattr(ray, "kill", killed.append)
    early, late = (SimpleNamespace(_ray_actor_id=bytes([i])) for i in range(2))
    actors = _Actors()
    for actor, ended in ((early, [early]), (late, [early, late])):
        actors.on_trial_start(0, [], SimpleNamespace(temporary_state=SimpleNamespace(ray_actor=actor)))
        if actor is early:
            actors.kill()
        assert killed == ended


@pytest.mark.parametrize("fails", [False, True])
def test_no_referee_outlives_its_run(desk, executor, monkeypatch, fails):
    import ray

    from allocsearch.backends import ray_executor

    def failing(*_, **__):
        raise RuntimeError("no room for the evaluator")

    study = desk.create(trials=3, proxy={"rungs": [10]}, scheduler=HALVING)
    if fails:
        monkeypatch.setattr(ray_executor, "_tuner", failing)
        with pytest.raises(RuntimeError, match="no room"):
            list(executor.run(study, partial(climb, bad=False), scheduler=halving(desk.spec)))
    else:
        list(executor.run(study, partial(climb, bad=False), scheduler=halving(desk.spec)))
    deadline = time.monotonic() + 30
    while ray.util.list_named_actors() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ray.util.list_named_actors() == []
