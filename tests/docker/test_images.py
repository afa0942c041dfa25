"""The images: linted, pinned, not root, and made of what is there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
LINES = re.sub(r"\\\n(\s*#.*\n)*", " ", TEXT).splitlines()


def instructions(name):
    return [line.split(maxsplit=1)[1] for line in LINES if line.startswith(f"{name} ")]


def test_the_linter_finds_nothing():
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert linter is not None, "the linter must be there: pip install 'allocsearch[dev]'"
    found = subprocess.run([linter, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_bases_are_of_one_version():
    stages = {one.split(" AS ")[1] for one in instructions("FROM")}
    bases = {one.split(" AS ")[0] for one in instructions("FROM")} - stages
    assert bases == {"python:${PYTHON}"}
    assert re.fullmatch(r"PYTHON=3\.11\.\d+-slim-\w+", instructions("ARG")[0])


def test_there_is_one_for_processors_and_one_for_gpus():
    assert {"cpu", "cuda"} <= {one.split(" AS ")[1] for one in instructions("FROM")}


def test_they_do_not_run_as_root():
    """The last user that both final images inherit."""
    assert instructions("USER") == ["10001:10001"]
    after = TEXT[TEXT.index("USER 10001") :]
    assert {"FROM runtime AS cpu", "FROM runtime AS cuda"} <= set(after.splitlines())
    assert "RUN " not in after


@pytest.mark.parametrize("package", ["torch", "ray"])
def test_what_they_pin_is_what_the_package_wants(package):
    from importlib.metadata import requires

    (wanted,) = [one for one in map(Requirement, requires("allocsearch")) if one.name == package and one.marker is None]
    (pinned,) = [one.partition("=")[2] for one in instructions("ARG") if one.startswith(f"{package.upper()}=")]
    assert wanted.specifier.contains(pinned)


def test_they_have_the_same_of_the_packages_extras():
    import tomllib

    offered = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (extras,) = [one.partition("=")[2].split(",") for one in instructions("ARG") if one.startswith("EXTRAS=")]
    assert set(extras) < set(offered)
    assert ["*.whl)[${EXTRAS}]" in line for line in instructions("RUN") if "*.whl" in line] == [True, True]


def test_what_they_copy_is_there_and_in_the_context():
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored  # everything is kept out but what is named
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {name for one in instructions("COPY") if "--from" not in one for name in re.sub(r"--\S+", "", one).split()[:-1]}
    assert copied == allowed
    # The package itself may be installed elsewhere than beside its tests.
    assert all((ROOT / name).exists() for name in copied - {"allocsearch"})


def test_the_wheel_needs_nothing_else():
    """What hatchling is told to put into the wheel is what the build stage is given."""
    import tomllib

    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*build["packages"], *build["force-include"], "pyproject.toml", "README.md", "LICENSE", "NOTICE"}
    assert needed == {name for one in instructions("COPY") for name in one.split()[:-1] if not one.startswith("--")}
