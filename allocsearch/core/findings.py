"""What a check found: fine, doubtful or broken, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check-up.

    Attributes:
        check: what was looked at, one or two words.
        level: `fail` where a run would not work or is open to strangers, `warn` where it may disappoint.
        found: what was seen, without secrets.
        remedy: what to do about it; empty where nothing is to be done.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""


def failed(findings: Iterable[Finding]) -> bool:
    """Whether any of them must be mended before a run."""
    return any(finding.level == "fail" for finding in findings)
