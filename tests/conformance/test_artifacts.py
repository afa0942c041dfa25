"""The ArtifactStore port on a folder, and what a study says of the weights that are kept."""

import pytest

from allocsearch.backends.artifacts import FolderArtifacts
from allocsearch.core.errors import InputError
from tests.conformance.toy import measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


@pytest.fixture
def store(tmp_path):
    return FolderArtifacts(tmp_path / "not" / "there" / "yet")


def test_what_is_written_is_read(store, tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"weights")
    store.write("trial-0", source)
    store.read("trial-0", target)
    assert target.read_bytes() == b"weights"
    source.write_bytes(b"other")
    store.write("trial-0", source)
    store.read("trial-0", target)
    assert target.read_bytes() == b"other"
    assert [path.name for path in store.folder.iterdir()] == ["trial-0"], "no half-written file is left"


def test_what_was_removed_is_named(store, tmp_path):
    (tmp_path / "a").touch()
    store.write("trial-0", tmp_path / "a")
    store.remove("trial-0")
    store.remove("trial-0")
    with pytest.raises(InputError) as caught:
        store.read("trial-0", tmp_path / "b")
    assert str(caught.value).startswith(f"the weights 'trial-0' must be in {store.folder}, but they are not")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret"])
def test_no_name_leaves_the_folder(store, tmp_path, name):
    """Names come from the database, which others may write."""
    store.folder.mkdir(parents=True)
    secret = store.folder.parent / "secret"
    secret.write_bytes(b"mine")
    with pytest.raises(ValueError, match="Invalid artifact_id"):
        store.read(name, tmp_path / "copy")
    with pytest.raises(ValueError, match="Invalid artifact_id"):
        store.remove(name)
    with pytest.raises(ValueError, match="Invalid artifact_id"):
        store.write(name, secret)
    assert secret.read_bytes() == b"mine"
    assert not (tmp_path / "copy").exists()


def test_a_study_lists_the_weights_that_are_kept(desk):
    """Its list outlives the driver, and weights that are given up leave it."""
    study = desk.create(trials=3)
    for number in range(3):
        study.tell(number, measured(study.ask(), artifact=f"w{number}"))
    assert study.artifacts == {"w0", "w1", "w2"}
    study.forget_artifact("w1")
    assert desk.open().artifacts == desk.record().artifacts == {"w0", "w2"}
