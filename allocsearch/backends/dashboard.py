"""Optuna's dashboard on a storage, for looking only.

The dashboard itself knows no login, and lets any page that the same browser shows change and delete studies. So nothing but reading gets
through here, and only under the names that this server was bound to: a foreign name that resolves to this machine is a foreign page's.
"""

import socketserver
from collections.abc import Callable, Iterable
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from allocsearch.backends.storage import open_storage
from allocsearch.core.errors import InputError

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_READING: Final = frozenset({"GET", "HEAD"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


def serve(url: str | None, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the studies at `url` until interrupted.

    Raises:
        InputError: where the dashboard is not installed, the storage cannot be opened or the port cannot be had.
    """
    try:
        from optuna_dashboard import wsgi  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("the dashboard needs optuna-dashboard, but it is not installed: pip install 'allocsearch[dashboard]'") from error
    application = looking_only(wsgi(open_storage(url)), host)
    try:
        server = make_server(host, port, application, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        raise InputError(f"the dashboard must be able to listen at {host}:{port}, but: {error.strerror}: give another --port") from error
    with server:
        say(f"dashboard at http://{host}:{server.server_port}/, for looking only; Ctrl-C ends it")
        server.serve_forever()


def looking_only(application: Application, host: str) -> Application:
    """`application`, but for requests that would change something or that come under another name than `host` or loopback's."""
    names = _LOOPBACK | {host}

    def guarded(environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in _READING:
            return _refuse(respond, "this dashboard is for looking only")
        if _name(environment.get("HTTP_HOST", "")) not in names:
            return _refuse(respond, "this dashboard answers under the name that it was bound to only")
        return application(environment, respond)

    return guarded


def _refuse(respond: Callable[..., Any], reason: str) -> list[bytes]:
    respond("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
    return [reason.encode()]


def _name(authority: str) -> str:
    """The name or address in `name:port`."""
    name, colon, port = authority.rpartition(":")
    return name.lower() if colon and port.isdigit() else authority.lower()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """A line per request helps nobody."""
