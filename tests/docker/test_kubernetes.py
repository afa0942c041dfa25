"""The manifest for Kubernetes: valid to the letter, not root, and with secrets for the driver alone."""

import gzip
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER, DRIVER, POLICY = yaml.safe_load_all((ROOT / "docker" / "kubernetes" / "raycluster.yaml").read_text(encoding="utf-8"))
SPECS = {
    "head": CLUSTER["spec"]["headGroupSpec"]["template"],
    "worker": CLUSTER["spec"]["workerGroupSpecs"][0]["template"],
    "driver": DRIVER["spec"]["template"],
}


def strict(schema):
    """A schema that refuses unknown keys, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    closed = (
        isinstance(schema.get("properties"), dict)
        and "additionalProperties" not in schema
        and "x-kubernetes-preserve-unknown-fields" not in schema
    )
    return {**found, "additionalProperties": False} if closed else found


@pytest.fixture(scope="module")
def schema():
    path = ROOT / "tests" / "fixtures" / "schemas" / "raycluster.json.gz"
    found = json.loads(gzip.decompress(path.read_bytes()))
    found["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
    return strict(found)


def test_the_cluster_is_one_of_kuberays(schema):
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    jsonschema.validate(CLUSTER, schema)
    for key in ("rayVersoin", "authOption"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**CLUSTER, "spec": {**CLUSTER["spec"], key: "x"}}, schema)


def test_the_drivers_pod_is_one(schema):
    """The cluster's own pods have the schema of every pod."""
    pod = schema["properties"]["spec"]["properties"]["headGroupSpec"]["properties"]["template"]["properties"]["spec"]
    jsonschema.validate(DRIVER["spec"]["template"]["spec"], pod)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**DRIVER["spec"]["template"]["spec"], "restartPolice": "Never"}, pod)


@pytest.mark.parametrize("pod", SPECS)
def test_no_pod_is_root_or_can_become_it(pod):
    spec = SPECS[pod]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["automountServiceAccountToken"] is False
    assert not spec.get("hostNetwork")
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("pod", ["head", "worker"])
def test_nodes_are_watched(pod):
    (container,) = SPECS[pod]["spec"]["containers"]
    assert container["livenessProbe"]["exec"]["command"]
    assert container["readinessProbe"]["exec"]["command"]


def test_the_cluster_wants_a_token_and_keeps_to_itself():
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token", "secretName": "allocsearch-ray"}
    assert CLUSTER["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["include-dashboard"] == "false"
    labels = POLICY["spec"]["podSelector"]["matchLabels"]
    assert all(labels.items() <= pod["metadata"]["labels"].items() for pod in SPECS.values())
    assert POLICY["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]


def test_only_the_driver_is_told_of_the_database():
    for name, pod in SPECS.items():
        assert ("allocsearch-storage" in json.dumps(pod)) == (name == "driver")


def test_no_secret_stands_in_the_file():
    for pod in SPECS.values():
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                secret = any(word in variable["name"] for word in ("TOKEN", "STORAGE", "PASSWORD"))
                assert not secret or variable["value"].startswith("/run/secrets/")


def test_the_versions_agree_with_the_images():
    assert f"ARG RAY={CLUSTER['spec']['rayVersion']}\n" in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
