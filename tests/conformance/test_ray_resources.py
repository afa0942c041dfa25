"""What a trial takes of a node, and how many trials that makes."""

import os

import pytest

from allocsearch.backends.ray_resources import Resources, cluster_resources, local_resources, room
from allocsearch.core.errors import InputError
from allocsearch.resources_spec import ResourcesSpec
from tests.conformance.toy import evaluate, spec_of


def node(alive=True, **resources):
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("wanted", "has", "holds"),
    [
        (Resources(None), {"CPU": 4.0}, 4),
        (Resources(None), {}, 0),
        (Resources(None, threads=3), {"CPU": 8.0}, 2),
        (Resources(None, gpus=0.5), {"CPU": 8.0, "GPU": 2.0}, 4),
        (Resources(None, gpus=0.4), {"CPU": 8.0, "GPU": 2.0}, 4),  # a share does not reach into the next GPU
        (Resources(None, gpus=1 / 3), {"CPU": 8.0, "GPU": 1.0}, 3),
        (Resources(None, gpus=2), {"CPU": 8.0, "GPU": 5.0}, 2),
        (Resources(None, gpus=1), {"CPU": 8.0}, 0),
        (Resources(None, memory=3 * 10**9), {"CPU": 8.0, "memory": 10e9}, 3),
    ],
)
def test_a_node_holds_what_fits(wanted, has, holds):
    assert room(node(**has), wanted) == holds
    assert room(node(alive=False, **has), wanted) == 0


def test_a_clusters_trials_take_a_gpu_where_there_is_one():
    mixed = [node(CPU=4.0), node(CPU=16.0, GPU=2.0)]
    assert cluster_resources(mixed, None) == Resources(None, threads=1, gpus=1.0)
    assert cluster_resources(mixed[:1], 3) == Resources(3, threads=1, gpus=0.0)
    wish = ResourcesSpec(gpus=0.5, threads=2, memory_gb=8)
    assert cluster_resources(mixed, None, wish=wish) == Resources(None, threads=2, gpus=0.5, memory=8 * 10**9)
    assert str(cluster_resources(mixed, None, wish=wish)) == "0.5 GPU, 2 threads, 8 GB"


def test_a_machines_workers_follow_the_wish():
    found = local_resources(None, num_trials=10**6, wish=ResourcesSpec(threads=10**3))
    assert (found.num_workers, found.threads) == (1, 1000)
    assert local_resources(5, num_trials=9, wish=ResourcesSpec(threads=2)) == Resources(5, threads=2, gpus=0.0)


def test_resources_change_no_digest():
    assert spec_of().digest == spec_of(resources={"gpus": 0.5, "threads": 2, "memory_gb": 8}).digest


def test_no_share_of_a_second_gpu():
    with pytest.raises(InputError, match=r"`gpus` above 1 must be a whole number, but got 1\.5"):
        spec_of(resources={"gpus": 1.5})


def test_options_take_the_place_of_what_the_study_says():
    said = ResourcesSpec(gpus=1, memory_gb=4)
    assert said.overridden(ResourcesSpec(gpus=0.5)) == ResourcesSpec(gpus=0.5, memory_gb=4)
    assert said.overridden(ResourcesSpec()) == said


def test_a_trial_that_fits_nowhere_here_is_refused(tmp_path):
    from allocsearch.backends.ray_executor import RayExecutor
    from tests.conformance.toy import Desk

    study = Desk(f"sqlite:///{tmp_path}/studies.db", "toy").create()
    with pytest.raises(InputError, match="this machine must have room for a trial, but one takes 1 thread, 9e\\+06 GB: ask for less"):
        next(RayExecutor(Resources(1, memory=9 * 10**15)).run(study, evaluate))


def test_local_resources_share_the_cpus():
    cpus = len(os.sched_getaffinity(0))
    assert local_resources(1, num_trials=9).threads == cpus
    assert local_resources(None, num_trials=1).num_workers == 1
    assert local_resources(None, num_trials=10**6).num_workers in (cpus, 8)
    assert local_resources(7, num_trials=1).num_workers == 7
