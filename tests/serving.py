"""The dashboard's server, in a thread."""

import re
import threading
from contextlib import contextmanager

import pytest

from allocsearch.backends import dashboard


@contextmanager
def serving(url, *, host="127.0.0.1", writable=False):
    """Yields the address of the dashboard on `url`, as it says itself."""
    servers, said, ready = [], [], threading.Event()
    make_server = dashboard.make_server
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dashboard, "make_server", lambda *args, **kwargs: servers.append(make_server(*args, **kwargs)) or servers[0])
        options = {"host": host, "port": 0, "say": lambda line: said.append(line) or ready.set(), "writable": writable}
        thread = threading.Thread(target=dashboard.serve, args=(url,), kwargs=options)
        thread.start()
        assert ready.wait(60)
    (address,) = re.findall(r"http://[^/]+", said[0])
    yield address
    servers[0].shutdown()
    thread.join()
