"""Which versions of Python and of packages are installed."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Final

TRAINING: Final = ("allocsearch", "torch", "transformers", "peft")
"""The packages that a trial's result depends on."""


def version_of(package: str) -> str:
    """Of `package`, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Of Python and of `packages`, by name."""
    return {"python": python_version(), **{package: version_of(package) for package in packages}}


def package_versions() -> dict[str, str]:
    """Of `TRAINING` in this process, without the part after `+` that names a build: one for processors trains like one for GPUs."""
    return {package: version_of(package).partition("+")[0] for package in TRAINING}
