"""The proxy's own configuration, in a real nginx before a real dashboard."""

import base64
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "docker" / "proxy" / "nginx.conf"
NGINX = shutil.which("nginx")

# nginx is no Python package, so an environment for development need not have it: apt-get install nginx-light.
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Dashboard(BaseHTTPRequestHandler):
    """Says yes to everything, and shows what it was sent."""

    def answer(self):
        self.server.seen.append((self.command, self.headers["Host"], self.headers["Authorization"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"studies")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the library's names

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def proxy(tmp_path):
    """The proxy's port, and what came through to the dashboard behind it."""
    password = subprocess.run(["openssl", "passwd", "-6", "right"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "users").write_text(f"me:{password}\n")
    tmp_path.chmod(0o755)
    port = free_port()
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        server.seen = []
        text = CONFIG.read_text(encoding="utf-8").replace("/tmp/", f"{tmp_path}/nginx-")
        text = text.replace("/run/secrets/dashboard_users", f"{tmp_path}/users")
        text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("127.0.0.1:8081", f"127.0.0.1:{server.server_port}")
        config = tmp_path / "nginx.conf"
        config.write_text(text)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        # As root, nginx would change to a user who may not read the test's folder.
        running = subprocess.Popen([NGINX, "-c", config, "-g", "daemon off; master_process off;"])
        try:
            wait_for(port)
            yield port, server.seen
        finally:
            running.terminate()
            running.wait(30)
            server.shutdown()
            serving.join()


def wait_for(port):
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def status(port, path="/", *, method="GET", password=None):
    headers = {} if password is None else {"Authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@needs_nginx
def test_only_who_has_the_password_sees_studies_and_nobody_changes_one(proxy):
    port, seen = proxy
    assert status(port, "/healthz") == 204
    assert status(port) == 401
    assert status(port, password="wrong") == 401
    assert seen == []
    assert status(port, password="right") == 200
    for method in ("POST", "PUT", "DELETE"):
        assert status(port, method=method, password="right") == 403
        assert status(port, method=method) in {401, 403}
    ((method, host, authorization),) = seen
    assert method == "GET"
    assert host.startswith("127.0.0.1:")  # the name that the dashboard answers to
    assert authorization in {None, ""}  # the password goes no further
