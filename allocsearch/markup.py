"""Text that others wrote as Markdown that shows it and does nothing else."""

import re
from typing import Final

_MARKUP: Final = re.compile(r"([!-/:-@\[-`{-~])")
_ENUMERATION: Final = re.compile(r"^(\d+)([.)])(?=\s|$)")
_HARMLESS: Final = frozenset(".,:;()/%+='\"-?")
"""Punctuation that means nothing within a line; at its start some of it does, and is escaped there."""


def escaped(text: str) -> str:
    """One line of Markdown that shows `text` as it is: CommonMark takes a backslash before any ASCII punctuation as "not markup"."""
    line = " ".join(text.split())
    marked = _MARKUP.sub(lambda found: found[0] if found[0] in _HARMLESS and found.start() else f"\\{found[0]}", line)
    return _ENUMERATION.sub(r"\1\\\2", marked)
