"""Errors that users meet by name: the input is wrong, a machine is not fit to work, or the study has passed to another driver."""

from typing import Final

_GIST: Final = 300
"""As many characters as an error message has room for of what a library says at length."""


class InputError(ValueError):
    """Input that breaks a stated invariant. Its text is one line: what must hold, what was found, how to mend it."""


class InfeasibleError(InputError):
    """A well-formed request that no allocation satisfies, such as a budget below the smallest point of a space."""


class MachineError(Exception):
    """What a trial needs of its machine is not there: a base that cannot be loaded, a disk that is full. Its text is one line."""


class LostLeaseError(RuntimeError):
    """This driver's study has passed to another driver, so that what it still had to write was refused."""


def interrupted(error: BaseException | None) -> bool:
    """Whether `error` began as Ctrl-C: what fails while an interrupted run is cleared away must not hide that."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def line_of(error: object, *, limit: int | None = None) -> str:
    """The text of an error (or any other) as one line of at most `limit` characters; the name of its class where it has no text."""
    line = " ".join(str(error).split()) or type(error).__name__
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def gist(error: object) -> str:
    """`line_of` an error of a library that may go on for pages."""
    return line_of(error, limit=_GIST)


def quoted(text: str, *, limit: int = 60) -> str:
    """`text` as a literal for an error message, cut where it is long."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


def shown(items: object, *, limit: int = 12) -> str:
    """`items` (any iterable of strings) as a short comma list for an error message."""
    listed = [str(item) for item in items]  # type: ignore[attr-defined]
    tail = f", … ({len(listed)} in all)" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + tail
