"""Commands that a user is told to type next: with the options that make them mean the same studies, and without a password."""

import shlex
from collections.abc import Mapping

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from allocsearch.backends.urls import holds_secret, shown_url


def command(*words: object, **options: object) -> str:
    """`allocsearch WORDS --options`, which works as it stands when it is pasted into a shell, unless the storage holds a password.

    A password is never repeated: its URL stands before the command, in the variable that keeps it out of `ps`, and `***` has to be
    replaced by hand. Of a URL that cannot be parsed any part may be one: it is left out altogether.
    """
    url = options.pop("storage", None)
    parsed = _parsed(url)
    hidden = parsed is not None and holds_secret(parsed)
    given = options if parsed is None or hidden else {"storage": url, **options}
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


def _parsed(url: object) -> URL | None:
    try:
        return make_url(url) if isinstance(url, str) else None
    except (ArgumentError, ValueError):
        return None
