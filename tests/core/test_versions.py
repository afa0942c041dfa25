"""What is installed, and what is not."""

from platform import python_version

from allocsearch.core.versions import TRAINING, package_versions, versions_of


def test_what_is_missing_is_said_to_be():
    assert versions_of(("no-such-package",)) == {"python": python_version(), "no-such-package": "not installed"}


def test_a_build_is_no_version():
    assert package_versions() == {name: found.partition("+")[0] for name, found in versions_of(TRAINING).items() if name != "python"}
