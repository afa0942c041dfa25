"""What doctor says of a machine, each check by itself."""

from importlib.metadata import PackageNotFoundError

import pytest

from allocsearch import health
from allocsearch.core.findings import Finding, failed
from allocsearch.model_store import RECORD

GIGABYTE = 10**9


def levels(findings):
    return [finding.level for finding in findings]


@pytest.mark.parametrize(("version", "level"), [(("3", "10", "9"), "fail"), (("3", "11", "0"), "ok"), (("3", "14", "0rc1"), "ok")])
def test_python_must_be_new_enough(version, level):
    assert health.python(version).level == level


def installed(**versions):
    def version_of(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return version_of


ALL = {"torch": "2.13.0+cpu", "ray": "2.60.0", "optuna": "5.0.0", "peft": "0.21.2", "transformers": "5.23.0"}
NEEDED = ["ray[tune]>=2.60", "torch>=2.10,<2.14", "optuna>=5.0,<6", "psycopg>=3.2; extra == 'postgres'"]


def test_met_requirements_are_one_line_with_the_versions_that_matter():
    (found,) = health.packages(NEEDED, installed(**ALL))
    assert found.level == "ok"
    assert "all 3 requirements" in found.found  # an extra that nobody asked for is not missing
    assert "ray 2.60.0" in found.found


def test_a_ray_with_known_holes_fails_and_names_them():
    (found,) = health.packages(NEEDED, installed(**{**ALL, "ray": "2.51.1"}))
    assert found == Finding(
        "packages",
        "fail",
        "ray 2.51.1 is installed, but >=2.60 is needed, which also keeps CVE-2023-48022, CVE-2025-62593 and CVE-2026-27482 out",
        "pip install 'ray>=2.60'",
    )


def test_every_unmet_requirement_is_named():
    found = list(health.packages(NEEDED, installed(torch="2.14.1", optuna="4.9.0")))
    assert levels(found) == ["fail"] * 3
    assert [finding.found.split()[0] for finding in found] == ["ray", "torch", "optuna"]


def test_a_development_version_of_a_package_counts():
    assert levels(health.packages(["torch>=2.10"], installed(**{**ALL, "torch": "2.11.0.dev1"}))) == ["ok"]


def test_the_floors_for_known_holes_are_declared():
    """The floors that doctor checks are those that pip checks: one place for both."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    declared = {one.name: one.specifier for one in map(Requirement, requires("allocsearch"))}
    assert not declared["ray"].contains("2.59.9")
    assert not declared["torch"].contains("2.5.1")
    assert declared.keys() >= health.SECURITY_FLOORS.keys()


@pytest.mark.parametrize(("gigabytes", "level"), [(0.5, "warn"), (64, "ok")])
def test_memory_and_disk_warn_where_they_are_short(gigabytes, level):
    assert health.memory(int(gigabytes * GIGABYTE)).level == level
    assert health.disk(int(gigabytes * GIGABYTE)).level == level


@pytest.mark.parametrize(("limit", "expected"), [("1000", 1000), ("max", None), (str(10**18), None)])
def test_a_containers_limit_counts(tmp_path, monkeypatch, limit, expected):
    file = tmp_path / "memory.max"
    file.write_text(f"{limit}\n")
    monkeypatch.setattr(health, "_CGROUP_LIMIT", file)
    monkeypatch.setattr(health.psutil, "virtual_memory", type("Memory", (), {"available": 5000}))
    assert health.available_memory() == (expected or 5000)


def test_a_home_that_cannot_be_written_fails(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path / "file" / "home"))  # permissions do not stop root, a file in the way does
    (found,) = health.home_folder()
    assert found.level == "fail"
    assert "ALLOCSEARCH_HOME" in found.remedy


def test_a_home_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path))
    assert [finding.check for finding in health.home_folder()] == ["home", "disk"]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_a_warning_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_HOME", str(tmp_path))
    found = health.models()
    assert (found.level, found.remedy) == ("warn", "allocsearch models pull smollm2-135m")
    record = tmp_path / "models" / "smollm2-135m" / RECORD
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert health.models() == Finding("model", "ok", "built-in models in the home folder: smollm2-135m")


def test_a_driver_that_torch_cannot_use_is_a_warning(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(health, "_NVIDIA_DEVICE", tmp_path)
    assert health.processor().level == "warn"
    monkeypatch.setattr(health, "_NVIDIA_DEVICE", tmp_path / "absent")
    assert health.processor().level == "ok"


def test_only_a_failure_fails():
    assert not failed([Finding("a", "ok", ""), Finding("b", "warn", "")])
    assert failed([Finding("a", "ok", ""), Finding("b", "fail", "")])
