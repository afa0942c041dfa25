"""Commands that a user is told to type next: with the options that make them mean the same studies, and without a password."""

import shlex
from collections.abc import Mapping

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from allocsearch.backends.urls import holds_secret, shown_url


def command(*words: object, **options: object) -> str:
    """`allocsearch WORDS --options`, as it works when it is pasted into a shell.

    A storage whose URL holds a password stands before it, as the variable that keeps it out of `ps`, with `***` for the password.
    """
    url = options.get("storage")
    hidden = isinstance(url, str) and _holds_secret(url)
    given = {key: value for key, value in options.items() if key != "storage" or not hidden}
    line = shlex.join(["allocsearch", *map(str, words), *flags(given)])
    return f"ALLOCSEARCH_STORAGE={shlex.quote(shown_url(str(url)))} {line}" if hidden else line


def flags(given: Mapping[str, object]) -> list[str]:
    """`{"max_seeds": 3}` as `--max-seeds 3`; what is None, or a switch that is off, is left out."""
    found: list[str] = []
    for name, value in given.items():
        if value is None or value is False:
            continue
        found.append(f"--{name.replace('_', '-')}")
        found += [] if value is True else [str(value)]
    return found


def _holds_secret(url: str) -> bool:
    try:
        return holds_secret(make_url(url))
    except (ArgumentError, ValueError):  # a part of it may be one
        return True
