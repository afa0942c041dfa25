"""What must be right on this machine before a run: Python, packages, processor, memory, the home folder, the model."""

import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil
from packaging.requirements import Requirement

from allocsearch.builtin_models import BUILTIN_MODELS
from allocsearch.core.errors import InputError
from allocsearch.core.findings import Finding
from allocsearch.home import home
from allocsearch.model_store import is_pulled

SECURITY_FLOORS: Final = {"ray": "CVE-2023-48022, CVE-2025-62593 and CVE-2026-27482", "torch": "CVE-2025-32434"}
"""Packages whose lower bound keeps known holes out, beside what else it does. The bounds themselves stand in the package's metadata."""

_GIGABYTE: Final = 10**9
_ENOUGH_DISK: Final = 5 * _GIGABYTE
_ENOUGH_MEMORY: Final = 4 * _GIGABYTE
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
_NVIDIA_DEVICE: Final = Path("/dev/nvidiactl")


def machine() -> Iterator[Finding]:
    """Everything that this machine can tell by itself."""
    yield python(platform.python_version_tuple())
    yield from packages(metadata.requires("allocsearch") or (), metadata.version)
    yield processor()
    yield memory(available_memory())
    yield from home_folder()
    yield models()


def python(version: tuple[str, ...]) -> Finding:
    """Whether the interpreter is one that the package supports."""
    wanted = Requirement(f"python{metadata.metadata('allocsearch')['Requires-Python']}").specifier
    text = ".".join(version)
    if text in wanted:
        return Finding("python", "ok", f"{text} on {platform.platform()}")
    return Finding("python", "fail", f"{text}, but allocsearch needs {wanted}", "make an environment with a newer Python")


def packages(requirements: list[str] | tuple[str, ...], version_of: Callable[[str], str]) -> Iterator[Finding]:
    """One finding for each declared requirement that is not met, or a single one where all are."""
    needed = [Requirement(line) for line in requirements]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    unmet = [found for one in needed if (found := _unmet(one, version_of)) is not None]
    yield from unmet
    if not unmet:
        shown = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "ray", "optuna", "peft", "transformers"))
        yield Finding("packages", "ok", f"all {len(needed)} requirements met: {shown}")


def _unmet(needed: Requirement, version_of: Callable[[str], str]) -> Finding | None:
    remedy = f"pip install '{needed.name}{needed.specifier}'"
    try:
        found = version_of(needed.name)
    except metadata.PackageNotFoundError:
        return Finding("packages", "fail", f"{needed.name} is not installed, but {needed.specifier or 'any version'} is needed", remedy)
    if needed.specifier.contains(found, prereleases=True):
        return None
    holes = SECURITY_FLOORS.get(needed.name)
    why = f", which also keeps {holes} out" if holes else ""
    return Finding("packages", "fail", f"{needed.name} {found} is installed, but {needed.specifier} is needed{why}", remedy)


def processor() -> Finding:
    """The devices that trials would train on."""
    import torch  # noqa: PLC0415 - seconds to import

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Finding("GPU", "ok", ", ".join(f"{card.name} with {card.total_memory / _GIGABYTE:.0f} GB" for card in cards))
    if _NVIDIA_DEVICE.exists():
        found = f"this machine has an NVIDIA driver, but torch {torch.__version__} cannot use it"
        return Finding("GPU", "warn", found, "install a build of torch for this driver's CUDA version")
    return Finding("GPU", "ok", f"none; trials run on {psutil.cpu_count(logical=False) or 1} processor cores")


def available_memory() -> int:
    """Bytes that processes may still take: the machine's, or the container's limit where that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:  # not Linux, or no container
        return free
    return min(free, int(limit)) if re.fullmatch(r"\d+", limit) else free


def memory(available: int) -> Finding:
    """Whether a worker or two will fit. `available` in bytes."""
    found = f"{available / _GIGABYTE:.1f} GB available"
    if available >= _ENOUGH_MEMORY:
        return Finding("memory", "ok", found)
    return Finding("memory", "warn", found, "each worker holds a base model: run with --workers 1, or free some memory")


def home_folder() -> Iterator[Finding]:
    """Whether the folder of models, weights and the default database can be written, and has room."""
    try:
        folder = home()
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except InputError as error:
        yield Finding("home", "fail", str(error), "set ALLOCSEARCH_HOME to a folder that you may write")
        return
    except OSError as error:
        yield Finding("home", "fail", f"{error.strerror}: {error.filename}", "set ALLOCSEARCH_HOME to a folder that you may write")
        return
    yield Finding("home", "ok", f"{folder} is writable")
    yield disk(shutil.disk_usage(folder).free)


def disk(free: int) -> Finding:
    """Whether there is room for models and adapters. `free` in bytes."""
    found = f"{free / _GIGABYTE:.1f} GB free in the home folder"
    if free >= _ENOUGH_DISK:
        return Finding("disk", "ok", found)
    return Finding("disk", "warn", found, "make room, or set ALLOCSEARCH_HOME to a larger disk")


def models() -> Finding:
    """Whether built-in models are here, so that a run starts without a network."""
    here = [name for name in BUILTIN_MODELS if is_pulled(name)]
    if here:
        return Finding("model", "ok", f"built-in models in the home folder: {', '.join(here)}")
    first = next(iter(BUILTIN_MODELS))
    return Finding(
        "model", "warn", "no built-in model is here yet; a run fetches the one that it names", f"allocsearch models pull {first}"
    )
