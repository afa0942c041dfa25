"""The dashboard shows studies, and neither a reader nor a foreign page can change one."""

import threading
import urllib.error
import urllib.request

import pytest

from allocsearch.backends import dashboard
from allocsearch.backends.catalog import Catalog
from allocsearch.core.errors import InputError
from tests.conformance.toy import Desk, finish


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A study, and the address of the dashboard that shows it."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    finish(Desk(url, "mine").create(trials=2))
    servers, ready = [], threading.Event()
    make_server = dashboard.make_server
    monkeypatch.setattr(dashboard, "make_server", lambda *args, **kwargs: servers.append(make_server(*args, **kwargs)) or servers[0])
    serving = threading.Thread(target=dashboard.serve, args=(url,), kwargs={"host": "127.0.0.1", "port": 0, "say": lambda _: ready.set()})
    serving.start()
    assert ready.wait(60)
    yield f"http://127.0.0.1:{servers[0].server_port}", url
    servers[0].shutdown()
    serving.join()


def status(address, path, *, method="GET", host=None):
    request = urllib.request.Request(address + path, method=method, headers={"Host": host} if host else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_studies_are_shown_and_cannot_be_deleted(shown):
    address, url = shown
    code, body = status(address, "/api/studies")
    assert code == 200
    assert b'"mine"' in body
    for method in ("DELETE", "POST", "PUT", "PATCH", "OPTIONS"):
        assert status(address, "/api/studies/1", method=method)[0] == 403
    assert Catalog(url).names() == ["mine"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"])
def test_a_foreign_name_for_this_machine_is_refused(shown, host):

    assert status(shown[0], "/api/studies", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:8080", "[::1]:8080", "bound.example:80"])
def test_its_own_names_are_not(host):
    def application(_environment, respond):
        respond("200 OK", [])
        return [b"in"]

    guarded = dashboard.looking_only(application, "bound.example")
    assert guarded({"REQUEST_METHOD": "GET", "HTTP_HOST": host}, lambda *_: None) == [b"in"]
    assert guarded({"REQUEST_METHOD": "GET"}, lambda *_: None) != [b"in"]


def test_a_port_that_is_taken_is_named(shown):
    address, url = shown
    port = int(address.rpartition(":")[2])
    with pytest.raises(InputError, match=f"listen at 127.0.0.1:{port}, but: Address already in use"):
        dashboard.serve(url, host="127.0.0.1", port=port, say=str)
