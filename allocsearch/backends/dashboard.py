"""Optuna's dashboard on a storage: for looking only, unless changes are allowed.

The dashboard itself knows no login, and lets any page that the same browser shows change and delete studies. So nothing but reading gets
through here, and only under names of this server's own: a foreign name that resolves to this machine is a foreign page's.
Where changes are allowed, they must come from the dashboard's own pages.
"""

import socket
import socketserver
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from allocsearch.backends.storage import open_storage
from allocsearch.core.errors import InputError
from allocsearch.exposure import own_addresses

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_READING: Final = frozenset({"GET", "HEAD"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_EVERYWHERE: Final = frozenset({"", "0.0.0.0"})  # noqa: S104 - nothing is bound to it here
_KEPT_APART: Final = (("X-Frame-Options", "DENY"), ("Cross-Origin-Resource-Policy", "same-origin"))


def serve(url: str | None, *, host: str, port: int, say: Callable[[str], None], writable: bool = False) -> None:
    """Serve the studies at `url` until interrupted.

    Raises:
        InputError: where the dashboard is not installed, the storage cannot be opened, the port cannot be had, or changes are allowed to
            others than this machine.
    """
    if writable and host not in _LOOPBACK:
        raise InputError(f"`--writable` must stay on this machine, as there is no login, but got --host {host}: leave one of them out")
    try:
        from optuna_dashboard import wsgi  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError("the dashboard needs optuna-dashboard, but it is not installed: pip install 'allocsearch[dashboard]'") from error
    warnings.filterwarnings("ignore", module=r"optuna\.")  # a line per parameter at each look at importances
    application = guarded(wsgi(open_storage(url)), host, writable=writable)
    try:
        server = make_server(host, port, application, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        raise InputError(f"the dashboard must be able to listen at {host}:{port}, but: {error.strerror}: give another --port") from error
    with server:
        what = "studies can be changed and deleted" if writable else "for looking only"
        shown = next(iter(_own_addresses()), "localhost") if host in _EVERYWHERE else host
        say(f"dashboard at http://{shown}:{server.server_port}/, {what}; Ctrl-C ends it")
        server.serve_forever()


def guarded(application: Application, host: str, *, writable: bool = False) -> Application:
    """`application`, but for requests under another name than those of `host` or loopback's, and for changes.

    With `writable`, changes get through that the browser says to come from a page of this very server. Browsers state the origin with
    every request that is not a GET or a HEAD; what states none is refused too.
    """
    names = names_of(host)

    def answer(environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        if _name(environment.get("HTTP_HOST", "")) not in names:
            return _refuse(respond, "this dashboard answers under the names and addresses of its own machine only: see --host")
        if environment["REQUEST_METHOD"] not in _READING:
            if not writable:
                return _refuse(respond, "this dashboard is for looking only: allocsearch dashboard --writable allows changes")
            if not _is_own(environment):
                return _refuse(respond, "changes must come from this dashboard's own pages")
        return application(environment, _not_framed(respond))

    return answer


def names_of(host: str) -> frozenset[str]:
    """Under which names and addresses a server that is bound to `host` is asked; at a wildcard they are all of this machine's."""
    if host not in _EVERYWHERE:
        return _LOOPBACK | {host.lower()}
    return _LOOPBACK | {name.lower() for name in (socket.gethostname(), socket.getfqdn(), *_own_addresses())}


def _own_addresses() -> list[str]:
    return [address for address in own_addresses() if ":" not in address]  # the server speaks IPv4


def _is_own(environment: dict[str, Any]) -> bool:
    """Whether the page that sends a request is of the server that it is sent to."""
    origin = urlsplit(environment.get("HTTP_ORIGIN", ""))
    site = environment.get("HTTP_SEC_FETCH_SITE", "same-origin")
    return site == "same-origin" and bool(origin.netloc) and origin.netloc.lower() == environment["HTTP_HOST"].lower()


def _not_framed(respond: Callable[..., Any]) -> Callable[..., Any]:
    """Answers that no foreign page can show in a frame, to have it clicked, or load as a part of itself."""

    def with_headers(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        return respond(status, [*headers, *_KEPT_APART], *rest)

    return with_headers


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
