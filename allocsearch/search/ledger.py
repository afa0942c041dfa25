"""What a study has cost so far, and whether that is all that it may: its limits hold over all drivers that it ever has."""

from collections.abc import Iterable
from dataclasses import dataclass

from allocsearch.limits_spec import LimitsSpec

_HOUR = 3600.0


@dataclass(frozen=True, slots=True, order=True)
class Charge:
    """One ended trial: when it ended and how long its worker took, both in seconds; that worker's GPUs; tokens trained on."""

    ended_at: float
    seconds: float
    gpus: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What charges add up to. `hours` are those in which at least one trial ran: two that ran side by side count once."""

    hours: float = 0.0
    gpu_hours: float = 0.0
    tokens: int = 0


class Ledger:
    """Adds up charges, and holds them against limits."""

    def __init__(self, limits: LimitsSpec | None = None, charges: Iterable[Charge] = ()) -> None:
        self.limits = limits or LimitsSpec()
        self._busy: list[tuple[float, float]] = []  # disjoint, the latest last
        self._busy_seconds = self._gpu_seconds = 0.0
        self._tokens = 0
        for charge in sorted(charges):
            self.charge(charge)

    def charge(self, charge: Charge) -> None:
        """Take in a trial that has ended. Those that ended before it should come before it."""
        start, end = charge.ended_at - charge.seconds, charge.ended_at
        while self._busy and self._busy[-1][1] >= start:
            earlier = self._busy.pop()
            self._busy_seconds -= earlier[1] - earlier[0]
            start, end = min(start, earlier[0]), max(end, earlier[1])
        self._busy.append((start, end))
        self._busy_seconds += end - start
        self._gpu_seconds += charge.seconds * charge.gpus
        self._tokens += charge.tokens

    @property
    def spent(self) -> Spent:
        """So far."""
        return Spent(self._busy_seconds / _HOUR, self._gpu_seconds / _HOUR, self._tokens)

    @property
    def reached(self) -> str | None:
        """The name of a limit that is used up; None where none is."""
        spent, limits = self.spent, self.limits
        pairs = {
            "max_hours": (spent.hours, limits.max_hours),
            "max_gpu_hours": (spent.gpu_hours, limits.max_gpu_hours),
            "max_tokens": (spent.tokens, limits.max_tokens),
        }
        return next((name for name, (value, limit) in pairs.items() if limit is not None and value >= limit), None)
