"""Ray sessions that say nothing on the terminal and, where they are our own, listen on loopback only."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

# Read when Ray and Tune are imported.
for _name, _value in {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # or Tune would run its trial again by itself, unknown to the study
    "TUNE_WARN_THRESHOLD_S": "1000000",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402 - after its environment
from ray._private import auto_init_hook, ray_constants, services, utils, worker  # noqa: E402

from allocsearch.core.errors import InputError, line_of  # noqa: E402

_REACH_SECONDS: Final = 5
SECRETS: Final = ("ALLOCSEARCH_STORAGE", "ALLOCSEARCH_STORAGE_FILE", "PGPASSWORD", "PGPASSFILE")
"""Variables that nothing in a cluster is to inherit; docker/on-cluster knows them, too."""


def refuse_ray_client(address: str | None) -> None:
    """Ray Client would put the driver, with all that it knows, into an actor of the cluster.

    Raises:
        InputError: for an `address` that begins with `ray://`.
    """
    if address is not None and address.startswith("ray://"):
        raise InputError(
            "the driver must run on a node of the cluster, but `ray://` would carry its database credentials into a remote actor: "
            "use `--address auto` there"
        )


def _stay_on_loopback() -> None:
    """Ray has one switch that makes a session of one node listen on 127.0.0.1 only; it reads it when imported, and in its children."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _start_no_other() -> None:
    """Or Tune's thread would start a session after ours has ended. Ray's variable for this is read on import, which may be past."""
    auto_init_hook.enable_auto_connect = False


def _reach(address: str | None) -> None:
    """Raises where nothing listens at `host:port`, which Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()


def check_reachable(address: str) -> None:
    """Ask whether a cluster listens at `address` (`auto` or host:port), without joining it.

    Raises:
        InputError: where none does, or the address is Ray Client's.
    """
    refuse_ray_client(address)
    if ray.is_initialized():
        return
    _silence()
    with _explained(address):
        _reach(services.canonicalize_bootstrap_address_or_die(address))


@contextmanager
def _explained(address: str | None) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OverflowError, OSError) as error:
        what = "a local Ray session must start" if address is None else f"a Ray cluster must answer at {address!r}"
        raise InputError(f"{what}, but: {line_of(error)}") from error


def _silence() -> None:
    for name in ("ray", "ray.tune", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def without_variables(*names: str) -> Iterator[None]:
    """Without those of the environment, which are back afterwards."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _in_place(module: Any, name: str, ours: Callable[..., object]) -> Iterator[None]:
    """A function of Ray's that gives no choice, replaced for a while."""
    theirs = getattr(module, name)
    setattr(module, name, ours)
    try:
        yield
    finally:
        setattr(module, name, theirs)


def _without_announcements() -> AbstractContextManager[object]:
    """A session prints to stdout what befalls other nodes, whatever its settings: pages of it at a node's death, and into `--json`."""
    return _in_place(worker, "print_to_stdstream", lambda *_, **__: None)


def _without_command_line() -> AbstractContextManager[object]:
    """A session tells everyone in it the command line that a driver was started with, and `--storage` may hold a password there."""
    return _in_place(utils, "get_entrypoint_name", lambda: "allocsearch")


@contextmanager
def session(*, num_cpus: int, address: str | None) -> Iterator[None]:
    """A Ray session that says nothing on the terminal; one that was there before stays."""
    if ray.is_initialized():
        yield
        return
    _silence()
    local: dict[str, Any] = {"num_cpus": num_cpus, "include_dashboard": False}
    _start_no_other()
    if address is None:
        _stay_on_loopback()
    # What a session starts inherits the environment, and workers have no business with the database.
    with _explained(address), without_variables(*SECRETS), _without_command_line():
        _reach(address)
        ray.init(
            address="local" if address is None else address,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            configure_logging=False,
            **(local if address is None else {}),
        )
    try:
        with _without_announcements():
            yield
    finally:
        ray.shutdown()
