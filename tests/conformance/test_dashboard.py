"""The dashboard shows studies, and neither a reader nor a foreign page can change one."""

import urllib.error
import urllib.request

import pytest

from allocsearch.backends import dashboard
from allocsearch.backends.catalog import Catalog
from allocsearch.core.errors import InputError
from tests.conformance.toy import Desk, finish
from tests.serving import serving


@pytest.fixture
def shown(tmp_path):
    """A study, and the address of the dashboard that shows it."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    finish(Desk(url, "mine").create(trials=2))
    with serving(url) as address:
        yield address, url


def status(address, path, *, method="GET", **headers):
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    request = urllib.request.Request(address + path, method=method, headers=named, data=b"" if method != "GET" else None)
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
    assert status(shown[0], "/api/studies", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:8080", "[::1]:8080", "bound.example:80"])
def test_its_own_names_are_not(host):
    def application(_environment, respond):
        respond("200 OK", [])
        return [b"in"]

    guarded = dashboard.guarded(application, "bound.example")
    assert guarded({"REQUEST_METHOD": "GET", "HTTP_HOST": host}, lambda *_: None) == [b"in"]
    assert guarded({"REQUEST_METHOD": "GET"}, lambda *_: None) != [b"in"]


@pytest.mark.parametrize("bound", ["0.0.0.0", ""])
def test_at_a_wildcard_it_answers_under_this_machines_names_and_no_others(monkeypatch, bound):
    def application(_environment, respond):
        return [b"in"]

    monkeypatch.setattr(dashboard, "own_addresses", lambda: ["192.0.2.7", "2001:db8::7"])
    monkeypatch.setattr("socket.gethostname", lambda: "Workstation")
    monkeypatch.setattr("socket.getfqdn", lambda: "workstation.example")
    guarded = dashboard.guarded(application, bound)
    for host in ("192.0.2.7:8080", "workstation:8080", "WORKSTATION.example", "localhost:8080", "127.0.0.1"):
        assert guarded({"REQUEST_METHOD": "GET", "HTTP_HOST": host}, lambda *_: None) == [b"in"], host
    for host in ("evil.example:8080", "192.0.2.8:8080", "0.0.0.0:8080", "evil.workstation.example", ""):
        assert guarded({"REQUEST_METHOD": "GET", "HTTP_HOST": host}, lambda *_: None) != [b"in"], host


def test_bound_everywhere_it_says_where_and_is_found_there(tmp_path):
    with serving(f"sqlite:///{tmp_path / 'studies.db'}", host="0.0.0.0") as address:
        assert "0.0.0.0" not in address
        assert status(address, "/api/studies")[0] == 200
        assert status(address, "/api/studies", Host="evil.example")[0] == 403


def test_with_leave_to_write_only_its_own_pages_can(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for name in ("mine", "kept"):
        finish(Desk(url, name).create(trials=1))
    with serving(url, writable=True) as address:
        foreign = "http://evil.example"
        other_port = f"{address.rpartition(':')[0]}:1"
        rebound = {"Host": "evil.example", "Origin": foreign}
        sites = ("cross-site", "same-site", "none")
        for headers in ({}, rebound, *({"Origin": each} for each in (foreign, "null", "", other_port)),
                        *({"Origin": address, "Sec_Fetch_Site": site} for site in sites)):  # fmt: skip
            assert status(address, "/api/studies/1", method="DELETE", **headers)[0] == 403, headers
        assert Catalog(url).names() == ["kept", "mine"]
        assert status(address, "/api/studies/1", method="DELETE", Origin=address, Sec_Fetch_Site="same-origin")[0] == 204
    assert Catalog(url).names() == ["kept"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
def test_nobody_on_the_network_is_given_leave_to_write(tmp_path, host):
    with pytest.raises(InputError, match="no login"):
        dashboard.serve(f"sqlite:///{tmp_path / 'studies.db'}", host=host, port=0, say=str, writable=True)


def test_no_foreign_page_can_frame_it(shown):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(shown[0] + "/dashboard", timeout=60) as answer:
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_port_that_is_taken_is_named(shown):
    address, url = shown
    port = int(address.rpartition(":")[2])
    with pytest.raises(InputError, match=f"listen at 127.0.0.1:{port}, but: Address already in use"):
        dashboard.serve(url, host="127.0.0.1", port=port, say=str)
