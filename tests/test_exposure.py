"""Servers that ask nobody who is there are told from those that do."""

import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest

from allocsearch import exposure
from allocsearch.exposure import SERVICES, answers, exposed

RAY, DASHBOARD = SERVICES


@contextmanager
def server(status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == RAY.path else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield replace(RAY, port=serving.server_port)
        serving.shutdown()
        thread.join()


OPEN = b'{"version": "4", "ray_version": "2.60.0"}'


def test_a_server_that_lets_anybody_in_fails():
    with server(200, OPEN) as service:
        (found,) = exposed(["127.0.0.1"], [service])
    assert found.level == "fail"
    assert f"127.0.0.1:{service.port}" in found.found
    assert "RAY_AUTH_MODE=token" in found.remedy


@pytest.mark.parametrize(("status", "body"), [(401, OPEN), (403, OPEN), (200, b"another program"), (500, OPEN)])
def test_one_that_asks_or_is_another_passes(status, body):
    with server(status, body) as service:
        (found,) = exposed(["127.0.0.1"], [service])
    assert found.level == "ok"


def test_nobody_at_home_passes():
    assert not answers(replace(RAY, port=1), "127.0.0.1")
    assert [found.level for found in exposed(["127.0.0.1", "::1"], [replace(DASHBOARD, port=1)])] == ["ok"]


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    with server(200, OPEN) as service:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{service.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert not answers(replace(RAY, port=1), "127.0.0.1")


def test_own_addresses_are_those_that_others_can_reach():
    for address in exposure.own_addresses():
        assert not ip_address(address.partition("%")[0]).is_loopback


def test_the_dashboards_that_are_installed_answer_as_described():
    """What the probe asks for is what optuna-dashboard really serves."""
    from wsgiref.util import setup_testing_defaults

    import optuna
    from optuna_dashboard import wsgi

    environment, statuses = {}, []
    setup_testing_defaults(environment)
    environment["PATH_INFO"] = DASHBOARD.path
    body = b"".join(wsgi(optuna.storages.InMemoryStorage())(environment, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    assert DASHBOARD.marker.encode() in body
