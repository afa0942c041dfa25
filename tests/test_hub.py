"""The hub: every way it can fail is one line with a remedy."""

import time
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, errors

from allocsearch import hub
from allocsearch.core.errors import InputError
from allocsearch.models import model_digest, model_shape

RESPONSE = SimpleNamespace(headers={}, request=None)


@pytest.fixture
def answering(monkeypatch):
    """A hub that answers; `fail_with(error)` says how a download then ends."""
    monkeypatch.setattr(hub, "hub_reachable", lambda: True)

    def fail_with(error):
        def download(*_args, **_options):
            raise error

        monkeypatch.setattr(hub, "hf_hub_download", download)

    return fail_with


@pytest.mark.parametrize(("error", "message"), [
    (errors.GatedRepoError("403", response=RESPONSE), "is gated: accept its terms"),
    (errors.RepositoryNotFoundError("404", response=RESPONSE), "is not on the hub, or is private"),
    (errors.RevisionNotFoundError("404", response=RESPONSE), "branch, tag or commit"),
    (errors.LocalEntryNotFoundError("offline"), "not in the local cache"),
    (errors.RemoteEntryNotFoundError("404", response=RESPONSE), r"must have a file 'config\.json'"),
    (errors.HFValidationError("bad"), "folder or a hub id"),
    (errors.HfHubHTTPError("500\nInternal", response=RESPONSE), r"could not be fetched \(500 Internal\)"),
    (errors.HfHubHTTPError("401\nInvalid token", response=SimpleNamespace(headers={}, request=None, status_code=401)), "refuses the token"),
    (TimeoutError(), r"could not be fetched \(TimeoutError\)"),
])  # fmt: skip
def test_each_failure_has_a_remedy(answering, error, message):
    answering(error)
    with pytest.raises(InputError, match=message) as caught:
        hub.hub_file("owner/name", "config.json", revision="v1")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="built in are: smollm2-135m"):
        model_shape("owner/name", revision="v1")


def test_a_file_comes_from_the_cache_where_the_hub_is_out_of_reach(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(hub, "hub_reachable", lambda: False)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_args, **options: asked.update(options) or str(tmp_path / "config.json"))
    assert hub.hub_file("owner/name", "config.json") == tmp_path / "config.json"
    assert asked["local_files_only"] is True


def test_a_hub_models_digest_is_its_commit(monkeypatch, tmp_path):
    monkeypatch.setattr("allocsearch.model_store.hub_file", lambda *_args, **_options: tmp_path / "snapshots" / ("ab" * 20) / "config.json")
    assert model_digest("owner/name") == f"commit:{'ab' * 20}"


def test_no_network_is_found_out_at_once(monkeypatch):
    def no_network(*_args, **options):
        assert options["timeout"] <= 5
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(hub, "get_session", lambda: SimpleNamespace(head=no_network))
    assert not hub.hub_reachable()
    started = time.perf_counter()
    with pytest.raises(InputError, match="the hub cannot be reached"):
        model_shape("no-such-owner-here/no-such-model")
    assert time.perf_counter() - started < 5  # the client's own retries take more than twenty seconds


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_the_offline_switch_is_obeyed_without_asking(monkeypatch, value):
    monkeypatch.setattr(hub, "get_session", lambda: pytest.fail("asked the hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert not hub.hub_reachable()


def test_without_hub_restores_the_switch():
    before = constants.HF_HUB_OFFLINE
    with hub.without_hub():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE
