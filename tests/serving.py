"""The dashboard's server, in a thread."""

import threading
from contextlib import contextmanager

import pytest

from allocsearch.backends import dashboard


@contextmanager
def serving(url, *, writable=False):
    """Yields the address of the dashboard on `url`."""
    servers, ready = [], threading.Event()
    make_server = dashboard.make_server
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dashboard, "make_server", lambda *args, **kwargs: servers.append(make_server(*args, **kwargs)) or servers[0])
        options = {"host": "127.0.0.1", "port": 0, "say": lambda _: ready.set(), "writable": writable}
        thread = threading.Thread(target=dashboard.serve, args=(url,), kwargs=options)
        thread.start()
        assert ready.wait(60)
    yield f"http://127.0.0.1:{servers[0].server_port}"
    servers[0].shutdown()
    thread.join()
