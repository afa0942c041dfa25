"""The ArtifactStore port on a folder and on a bucket, and what a study says of the weights that are kept."""

import json
import pickle
import socket
from pathlib import Path

import pytest

from allocsearch.backends import artifact_store as stores
from allocsearch.backends.artifact_store import artifact_store, folder_of
from allocsearch.core.errors import InputError, MachineError
from tests.conformance.toy import measured


@pytest.fixture
def url(sqlite_url):
    return sqlite_url


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """Where one test's weights are kept."""
    if request.param == "folder":
        return tmp_path / "not" / "there" / "yet"
    request.getfixturevalue("s3")
    return f"s3://weights/of/{tmp_path.name}"


@pytest.fixture
def store(place):
    return artifact_store(place, "tiny")


@pytest.fixture
def names(place, request):
    """Everything that is stored at `place`, below the study's name."""

    def found():
        if isinstance(place, Path):
            return sorted(path.name for path in (place / "tiny").iterdir())
        prefix = place.removeprefix("s3://weights/") + "/tiny/"
        listed = request.getfixturevalue("s3").list_objects_v2(Bucket="weights", Prefix=prefix)
        return sorted(each["Key"].removeprefix(prefix) for each in listed.get("Contents", ()))

    return found


def test_what_is_written_is_read(store, names, tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"weights")
    store.write("trial-0", source)
    store.read("trial-0", target)
    assert target.read_bytes() == b"weights"
    source.write_bytes(b"other")
    store.write("trial-0", source)
    store.read("trial-0", target)
    assert target.read_bytes() == b"other"
    assert names() == ["trial-0"], "no half-written file is left"


def test_what_was_removed_is_named(store, place, tmp_path):
    (tmp_path / "a").touch()
    store.write("trial-0", tmp_path / "a")
    store.remove("trial-0")
    store.remove("trial-0")
    with pytest.raises(InputError) as caught:
        store.read("trial-0", tmp_path / "b")
    assert str(caught.value).startswith(f"the weights 'trial-0' must be in {place}/tiny, but they are not")
    assert not (tmp_path / "b").exists()


def test_a_place_that_takes_weights_is_found_good_and_left_empty(store, names):
    store.check()
    assert names() == []


def test_a_store_travels_to_another_process(store, names, tmp_path):
    """Also one that has been used, with its client and its connections, and without the credentials that these hold."""
    (tmp_path / "a").write_bytes(b"weights")
    store.write("trial-0", tmp_path / "a")
    sent = pickle.dumps(store)
    assert b"hunter2" not in sent + repr(store).encode()
    assert b"AKIA" not in sent
    pickle.loads(sent).read("trial-0", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret"])
def test_no_name_leaves_the_place(store, place, tmp_path, name):
    """Names come from the database, which others may write."""
    secret = tmp_path / "secret"
    if isinstance(place, Path):
        (place / "tiny").mkdir(parents=True)
        secret = place / "secret"
    secret.write_bytes(b"mine")
    with pytest.raises(ValueError, match="Invalid artifact_id"):
        store.read(name, tmp_path / "copy")
    with pytest.raises(ValueError, match="Invalid artifact_id"):
        store.remove(name)
    with pytest.raises(ValueError, match="Invalid artifact_id"):
        store.write(name, secret)
    assert secret.read_bytes() == b"mine"
    assert not (tmp_path / "copy").exists()


def unreachable(patch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    patch.setenv("AWS_ENDPOINT_URL", f"http://me:hunter2@127.0.0.1:{port}")


def without_credentials(patch):
    patch.delenv("AWS_ACCESS_KEY_ID")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")


REFUSALS = {
    "no such bucket": ("s3://nobodys/of", lambda _: None, "NoSuchBucket"),
    "no server": ("s3://weights", unreachable, "Could not connect"),
    "an endpoint that is none": ("s3://weights", lambda patch: patch.setenv("AWS_ENDPOINT_URL", "nowhere"), "Invalid endpoint"),
    "no credentials": ("s3://weights", without_credentials, "Unable to locate credentials"),
    "no such profile": ("s3://weights", lambda patch: patch.setenv("AWS_PROFILE", "nobody"), "profile (nobody) could not be found"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_bucket_that_does_not_serve_is_the_machines_matter_and_told_in_a_line(s3, monkeypatch, tmp_path, refusal):
    """A worker's trial is not to fail of it, and a driver is to hear of it before a study is made."""
    place, change, why = REFUSALS[refusal]
    change(monkeypatch)
    (tmp_path / "a").touch()
    store = artifact_store(place, "tiny")
    works = (lambda: store.write("a", tmp_path / "a"), lambda: store.read("a", tmp_path / "b"), lambda: store.remove("a"), store.check)
    for work, kind in zip(works, (MachineError, MachineError, MachineError, InputError), strict=True):
        with pytest.raises(kind, match="the bucket of weights must serve ") as caught:
            work()
        assert why in str(caught.value)
        assert f"{place}/tiny" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "hunter2" not in str(caught.value)
    assert "--artifacts" in str(caught.value)


@pytest.mark.parametrize("action", ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"])
def test_a_right_that_is_missing_is_found_before_anything_is_trained(s3, action):
    """To see that a key is not there is one, too, as for a trial without a checkpoint."""
    statement = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": "arn:aws:s3:::locked/*"}
    s3.create_bucket(Bucket="locked")
    s3.put_bucket_policy(Bucket="locked", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    with pytest.raises(InputError, match=rf"(403|AccessDenied).* {action.removeprefix('s3:')} operation"):
        artifact_store("s3://locked", "tiny").check()


@pytest.mark.parametrize(
    "place",
    [
        "s3://AKIA:hunter2@weights/of",
        "s3://hunter2@weights",
        "s3://AKIA:hunter/2@weights",
        "s3://weights/of?secret=hunter2",
        "s3:///hunter2",
        "gs://weights/hunter2",
        Path("s3://weights/hunter2"),
    ],
)
def test_another_url_is_refused_without_repeating_it(place):
    for refused in (lambda: artifact_store(place, "tiny"), lambda: folder_of(place)):
        with pytest.raises(InputError, match="a folder or in s3://BUCKET/PREFIX") as caught:
            refused()
        assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("place", ["out", Path("out"), "~/out"])
def test_a_folder_is_the_same_one_wherever_a_worker_works(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    store = artifact_store(place, "tiny")
    assert folder_of(place) == tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "a").write_bytes(b"weights")
    store.write("trial-0", tmp_path / "a")
    assert (tmp_path / "out" / "tiny" / "trial-0").read_bytes() == b"weights"


def test_nobodys_home_is_refused_in_a_line():
    with pytest.raises(InputError, match="'~nobody-of-this-name/out' is of nobody"):
        artifact_store("~nobody-of-this-name/out", "tiny")


@pytest.mark.parametrize("place", ["s3://weights", "s3://weights/", "s3://weights/of/", "s3://weights//of"])
def test_slashes_at_an_end_mean_nothing(place):
    assert str(artifact_store(place, "tiny")) == ("s3://weights/of/tiny" if "of" in place else "s3://weights/tiny")


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(stores, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'allocsearch\[s3\]'"):
        artifact_store("s3://weights", "tiny")
    artifact_store("a folder", "tiny")


def test_a_study_lists_the_weights_that_are_kept(desk):
    """Its list outlives the driver, and weights that are given up leave it."""
    study = desk.create(trials=3)
    for number in range(3):
        study.tell(number, measured(study.ask(), artifact=f"w{number}"))
    assert study.artifacts == {"w0", "w1", "w2"}
    study.forget_artifact("w1")
    assert desk.open().artifacts == desk.record().artifacts == {"w0", "w2"}
