"""The compose file: valid, and nobody in it is root, exposed, or knows more than they need."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
SCHEMAS = ROOT / "tests" / "fixtures" / "schemas"


def names(service, key):
    return set(SERVICES[service].get(key, []))


def test_it_is_a_compose_file():
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    compose = jsonschema.Draft7Validator(schema)
    assert [error.message for error in compose.iter_errors(COMPOSE)] == []
    assert not compose.is_valid({**COMPOSE, "services": {"driver": {"imag": "x"}}})


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_is_root_or_can_become_it(service):
    found = SERVICES[service]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found["user"])
    assert found["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in found["security_opt"]
    assert not found.get("privileged")
    assert not any("docker.sock" in str(volume) for volume in found.get("volumes", []))


@pytest.mark.parametrize("service", SERVICES)
def test_everybodys_health_is_watched(service):
    check = SERVICES[service]["healthcheck"]
    assert check.get("test") or (check == {"disable": True} and service == "schema")


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_of_one_version(service):
    name, colon, tag = SERVICES[service]["image"].partition(":")
    assert colon
    assert name == "allocsearch" or re.match(r"\d+\.\d+", tag)


def test_only_the_proxy_is_reached_and_from_this_machine_only():
    assert {name: found["ports"] for name, found in SERVICES.items() if "ports" in found} == {"proxy": ["127.0.0.1:8080:8080"]}
    assert not any(found.get("network_mode") == "host" for found in SERVICES.values())


def test_the_dashboard_is_behind_the_proxy():
    assert SERVICES["dashboard"]["network_mode"] == "service:proxy"
    assert "--host" not in SERVICES["dashboard"]["command"]  # its default is loopback
    port = SERVICES["dashboard"]["command"][-1]
    proxy = (FOLDER / "proxy" / "nginx.conf").read_text(encoding="utf-8")
    assert f"proxy_pass http://127.0.0.1:{port};" in proxy
    assert "listen 8080;" in proxy


def test_no_secret_stands_in_the_file():
    for name, found in SERVICES.items():
        for key, value in found.get("environment", {}).items():
            secret = re.search("PASSWORD|TOKEN|STORAGE|SECRET|KEY", key)
            assert not secret or str(value).startswith("/run/secrets/"), f"{name}: {key}"
    assert all(set(one) == {"file"} for one in COMPOSE["secrets"].values())
    assert "://" not in re.sub(r"http://127\.0\.0\.1", "", (FOLDER / "compose.yaml").read_text(encoding="utf-8"))


def test_each_is_told_its_own_secrets_only():
    assert {name for name in SERVICES if any("storage_" in one for one in names(name, "secrets"))} == {"schema", "driver", "dashboard"}
    for service, role in (("schema", "owner"), ("driver", "driver"), ("dashboard", "dashboard")):
        assert {one for one in names(service, "secrets") if one.startswith("storage_")} == {f"storage_{role}"}
        assert SERVICES[service]["environment"]["ALLOCSEARCH_STORAGE_FILE"] == f"/run/secrets/storage_{role}"


def test_workers_cannot_reach_the_database():
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert {name for name in SERVICES if "database" in names(name, "networks")} == {"database", "schema", "driver", "proxy"}


def test_every_ray_node_wants_the_token():
    for name in ("ray-head", "worker", "worker-gpu", "driver"):
        assert SERVICES[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert SERVICES[name]["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "ray_token" in names(name, "secrets")
    assert "--include-dashboard=false" in SERVICES["ray-head"]["entrypoint"]


def test_the_secrets_it_reads_are_those_that_are_made(tmp_path):
    made = subprocess.run([FOLDER / "make-secrets", tmp_path / "secrets"], capture_output=True, text=True, check=True)
    files = {path.name: path for path in (tmp_path / "secrets").iterdir()}
    assert files.keys() == COMPOSE["secrets"].keys()
    assert {one["file"] for one in COMPOSE["secrets"].values()} == {f"secrets/{name}" for name in files}
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    contents = {name: path.read_text() for name, path in files.items()}
    assert len({contents[name] for name in contents if name.startswith("postgres_")}) == 4
    password = re.search(r"password (\w+)", made.stdout)[1]
    assert not any(password in content for content in contents.values())  # only its hash is kept
    again = subprocess.run([FOLDER / "make-secrets", tmp_path / "secrets"], capture_output=True, text=True, check=True)
    assert again.stdout == ""
    assert contents == {name: path.read_text() for name, path in files.items()}


def test_secrets_are_never_committed():
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
