"""What doctor says of a Ray cluster."""

from allocsearch.backends.ray_health import authentication, cluster, resources
from allocsearch.backends.ray_session import session


def test_a_cluster_tells_what_it_has_and_where():
    with session(num_cpus=2, address=None):
        (found, login), hosts = cluster("auto")
    assert found.level == "ok"
    assert "1 node, 2 CPUs, 0 GPUs" in found.found
    assert login.check == "Ray login"
    assert hosts == ["127.0.0.1"]  # our own sessions listen on loopback only


def test_nodes_are_added_up():
    nodes = [{"Resources": {"CPU": 4.0, "GPU": 0.5}}, {"Resources": {"CPU": 2.0}}, {"Resources": {"memory": 5.0}}]
    assert "3 nodes, 6 CPUs, 0.5 GPUs" in resources(nodes).found


def test_only_a_token_is_a_login():
    assert authentication({"RAY_AUTH_MODE": "token"}).level == "ok"
    for environment in ({}, {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "x"}):
        found = authentication(environment)
        assert found.level == "warn"
        assert "RAY_AUTH_MODE=token" in found.remedy


def test_a_cluster_that_does_not_answer_is_one_failure():
    (found,), hosts = cluster("127.0.0.1:1")
    assert (found.level, hosts) == ("fail", [])
