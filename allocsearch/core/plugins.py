"""The expert kinds of installed plug-ins, found once, when allocations are first needed."""

from importlib.metadata import EntryPoint, entry_points
from typing import Final

from allocsearch.core.errors import InputError
from allocsearch.core.kinds import ENTRY_POINTS, ExpertKind

KINDS: Final[dict[str, ExpertKind]] = {}
"""What is installed, by name."""

PROBLEMS: Final[list[str]] = []
"""What is installed and cannot be used: one line each. The command line refuses to start; for others, `Allocation.parse` tells."""


def _load(points: list[EntryPoint]) -> None:
    for point in sorted(points, key=lambda point: point.name):
        try:
            KINDS[point.name] = _loaded(point)
        except InputError as error:
            PROBLEMS.append(str(error))


def _loaded(point: EntryPoint) -> ExpertKind:
    if point.name in KINDS:
        raise InputError(f"each expert kind must come from one plug-in, but {point.name!r} also comes from {_origin(point)}: uninstall one")
    try:
        kind = point.load()
    except Exception as error:  # the reason: it is somebody else's module, and may raise anything
        raise InputError(f"the plug-in {_origin(point)} must load, but: {type(error).__name__}: {error}: mend or uninstall it") from error
    if not isinstance(kind, ExpertKind) or kind.name != point.name:
        raise InputError(f"the entry point {point.name!r} of {_origin(point)} must be an ExpertKind of that name, but it is {kind!r}")
    return kind


def _origin(point: EntryPoint) -> str:
    return repr(point.value) if point.dist is None else repr(point.dist.name)


_load(list(entry_points(group=ENTRY_POINTS)))
