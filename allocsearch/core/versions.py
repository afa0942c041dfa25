"""Which versions of Python and of packages are installed."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Of Python and of `packages`, by name."""
    found = {"python": python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
