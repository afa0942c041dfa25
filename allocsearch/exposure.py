"""Services that answer strangers: they listen on another address than loopback and ask nobody who is there."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import psutil

from allocsearch.core.findings import Finding

_SECONDS: Final = 1.0
_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Service:
    """A server that has no login of its own, or one that may be off.

    Attributes:
        path: answers 200 to whom the server lets in.
        marker: stands in that answer, so that another server on the same port is not mistaken for it.
        danger: what whom it lets in may do.
    """

    name: str
    port: int
    path: str
    marker: str
    danger: str
    remedy: str


SERVICES: Final = (
    Service(
        "Ray dashboard", 8265, "/api/version", "ray_version", "run code",
        "start the head with --dashboard-host 127.0.0.1, or the whole cluster with RAY_AUTH_MODE=token",
    ),
    Service(
        "optuna-dashboard", 8080, "/api/meta", "artifact_is_available", "delete studies",
        "bind it to 127.0.0.1, and put a proxy that authenticates before it",
    ),
)  # fmt: skip


def exposed(hosts: Iterable[str], services: Iterable[Service] = SERVICES) -> Iterator[Finding]:
    """A failure for each service that answers without a login at one of `hosts`, or one line that says none does."""
    places = [(service, host) for service in services for host in hosts]
    open_ = [(service, host) for service, host in places if answers(service, host)]
    for service, host in open_:
        found = f"a {service.name} answers anybody at {_authority(host, service.port)}, who may {service.danger} there"
        yield Finding("binds", "fail", found, service.remedy)
    if not open_:
        names = " or ".join(f"{service.name} (port {service.port})" for service in services)
        yield Finding("binds", "ok", f"no {names} answers without a login beyond loopback")


def open_job_server(url: str) -> Finding | None:
    """A warning where Ray's job server at `url`, on another machine, takes orders from anybody."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    ray = replace(SERVICES[0], port=parts.port or (443 if secure else 80))
    if host == "localhost" or host.startswith("127.") or host == "::1" or not answers(ray, host, scheme=parts.scheme):
        return None
    return Finding("binds", "warn", f"the job server at {_authority(host, ray.port)} asks nobody who is there", ray.remedy)


def answers(service: Service, host: str, *, scheme: str = "http") -> bool:
    """Whether `service` answers at `host` to a request that carries no credentials."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{scheme}://{_authority(host, service.port)}{service.path}", timeout=_SECONDS) as answer:
            return service.marker.encode() in answer.read(_BYTES)
    except (OSError, ValueError):  # nobody listens, or it refuses: HTTP errors are OSErrors
        return False


def own_addresses() -> list[str]:
    """This machine's addresses that others can reach, as far as its interfaces tell."""
    families = {socket.AF_INET, socket.AF_INET6}
    found = [address.address for card in psutil.net_if_addrs().values() for address in card if address.family in families]
    return sorted({address for address in found if not address.startswith(("127.", "::1", "fe80:"))})


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
