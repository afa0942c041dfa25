"""A study as it was read from the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from allocsearch.backends.standing import Standing, standing_of
from allocsearch.core.trial import Failed, SeedScore, Trial
from allocsearch.limits_spec import LimitsSpec
from allocsearch.search.ledger import Charge, Ledger
from allocsearch.spec import ConfirmationSpec, StudySpec

SPEC: Final = "spec"
TARGET: Final = "target_trials"
OF: Final = "companion_of"
CONFIRMATION: Final = "confirmation"
LIMITS: Final = "limits"
FOLLOWED_UP: Final = "followed_up"
CONTENDERS: Final = "contenders"

Companion = Literal["calibration", "random", "replicas", "confirmation"]
"""What is trained beside a search, each in a study of its own: `NAME/calibration` and so on, so that a search's trials stay its own."""
COUNTED: Final[tuple[Companion, ...]] = ("random", "replicas", "confirmation")


@dataclass(frozen=True)
class StudyRecord:
    """A study as it stands in the database at one moment.

    Its trials carry the scores of their replicas, too.
    `driver` is the process that drives it, if one does.
    `charges` are those of what follows the search, too; a calibration comes before it and does not count.
    `wall_seconds` goes from the start of its first trial to the last end of one, pauses between drivers included.
    With a `glance`, its trials were not read, and only what depends on none of them can be asked.
    """

    name: str
    spec: StudySpec
    attrs: Mapping[str, Any]
    trials: tuple[Trial, ...]
    waiting: frozenset[int]
    base: SeedScore | None
    artifacts: frozenset[str] = frozenset()
    wall_seconds: float = 0.0
    charges: tuple[Charge, ...] = ()
    driver: str | None = None
    glance: Standing | None = None

    @property
    def num_trials(self) -> int:
        """The target number of finished trials; for a companion all that it has."""
        if OF in self.attrs:
            return len(self.trials) if self.glance is None else sum(self.glance.counts.values())
        return int(self.attrs.get(TARGET, self.spec.trials))

    @property
    def limits(self) -> LimitsSpec:
        """The spec's, but for what a resume has made of them."""
        return self.spec.limits.model_copy(update=self.attrs.get(LIMITS, {}))

    @property
    def ledger(self) -> Ledger:
        """What the search and what follows it have cost so far."""
        return Ledger(self.limits, self.charges)

    @property
    def confirmation(self) -> ConfirmationSpec:
        """What is to follow the search: what was last asked for, else what the spec says."""
        asked = self.attrs.get(CONFIRMATION)
        return self.spec.confirmation if asked is None else ConfirmationSpec.model_validate(asked)

    @property
    def follow_up(self) -> dict[str, Any]:
        """What is to follow the search, as JSON: kept with the study once all of it has ended."""
        return {"replication": self.spec.replication.model_dump(mode="json"), "confirmation": self.confirmation.model_dump(mode="json")}

    @property
    def is_complete(self) -> bool:
        """Whether the search and everything that is to follow it have ended."""
        wanted = self.spec.replication.contenders > 1 or self.confirmation.candidates > 0
        return self.num_missing == 0 and (not wanted or self.attrs.get(FOLLOWED_UP) == self.follow_up)

    @property
    def num_missing(self) -> int:
        """Trials that are still to finish before the target is reached."""
        finished = sum(trial.outcome is not None and not isinstance(trial.outcome, Failed) for trial in self.trials)
        done = finished if self.glance is None else self.glance.num_done
        return max(0, self.num_trials - done)

    @property
    def standing(self) -> Standing:
        """Counts, the best, what was spent."""
        if self.glance is not None:
            return self.glance
        return standing_of(self.trials, self.waiting, metric=self.spec.metric, wall_seconds=self.wall_seconds)
