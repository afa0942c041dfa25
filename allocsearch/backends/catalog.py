"""The studies of a storage: making one, finding one, and reading one without the right to change it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from allocsearch.backends import dashboard_content
from allocsearch.backends import trial_records as records
from allocsearch.backends.artifacts import linked
from allocsearch.backends.lasting import LastingStorage
from allocsearch.backends.lease import Fence, Lease, holder_of
from allocsearch.backends.optuna_quiet import experimental
from allocsearch.backends.optuna_study import DIRECTIONS, METRICS, OptunaStudy
from allocsearch.backends.schema import require_own
from allocsearch.backends.storage import explained, open_storage, storage_url
from allocsearch.core.errors import InputError, shown
from allocsearch.core.trial import Failed, SeedScore, Trial
from allocsearch.limits_spec import LimitsSpec
from allocsearch.search.finalists import with_replicas
from allocsearch.search.ledger import Charge, Ledger
from allocsearch.search.proposals import Proposals
from allocsearch.spec import ConfirmationSpec, StudySpec

_SPEC: Final = "spec"
_TARGET: Final = "target_trials"
_OF: Final = "companion_of"
CONFIRMATION: Final = "confirmation"
LIMITS: Final = "limits"
FOLLOWED_UP: Final = "followed_up"
CONTENDERS: Final = "contenders"

Companion = Literal["calibration", "random", "replicas", "confirmation"]
"""What is trained beside a search, each in a study of its own: `NAME/calibration` and so on, so that a search's trials stay its own."""
_COUNTED: Final[tuple[Companion, ...]] = ("random", "replicas", "confirmation")


@dataclass(frozen=True)
class StudyRecord:
    """A study as it stands in the database at one moment.

    Its trials carry the scores of their replicas, too.
    `driver` is the process that drives it, if one does.
    `charges` are those of what follows the search, too; a calibration comes before it and does not count.
    `wall_seconds` goes from the start of its first trial to the last end of one, pauses between drivers included.
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

    @property
    def num_trials(self) -> int:
        """The target number of finished trials; for a companion all that it has."""
        return len(self.trials) if _OF in self.attrs else int(self.attrs.get(_TARGET, self.spec.trials))

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
        return max(0, self.num_trials - finished)


class Catalog:
    """All studies at one storage URL (None: the SQLite file in the home folder)."""

    def __init__(self, url: str | None) -> None:
        self.url = storage_url(url)
        self._storage: RDBStorage = open_storage(url)
        self._lasting = LastingStorage(self._storage)
        self._fence = Fence(self._storage.scoped_session.session_factory)

    @contextmanager
    def driving(self, name: str) -> Iterator[None]:
        """Holds the lease of study `name`, its companions included: this catalog writes under it, and no longer.

        Raises:
            InputError: where another driver holds it.
            LostLeaseError: from any later write, where another driver has taken the study over.
        """
        with explained(self.url):
            require_own(self._storage.engine, self.url)
            self._fence.lease = lease = Lease(self._storage.engine, name)
        with lease.renewed():
            try:
                yield
            except optuna.exceptions.UpdateFinishedTrialError:
                lease.confirm()  # somebody else ended the trial: Optuna looks at that before we look at the lease
                raise

    def names(self) -> list[str]:
        """The studies in this storage, allocsearch's or not; companions are left out."""
        with explained(self.url):
            return sorted(name for name in optuna.get_all_study_names(self._lasting) if not _is_companion(name))

    def create(self, name: str, spec: StudySpec, attrs: Mapping[str, Any]) -> None:
        """Make a study with everything that a resume or a reader needs to know of it."""
        with explained(self.url):
            try:
                study = optuna.create_study(storage=self._lasting, study_name=name, directions=list(DIRECTIONS[spec.objective]))
            except optuna.exceptions.DuplicatedStudyError as error:
                raise InputError(f"a new study needs a new name, but {name!r} exists: try allocsearch resume {name}") from error
            with experimental():
                study.set_metric_names(list(METRICS[spec.objective]))
            # The spec comes last: a study without one was never started, and `record` says so.
            own = {"spec_hash": spec.digest, "budget": spec.budget, _TARGET: spec.trials, _SPEC: spec.to_json()}
            for key, value in {**attrs, **own}.items():
                study.set_user_attr(key, value)

    def record(self, name: str) -> StudyRecord:
        """Read a study.

        Raises:
            InputError: where there is none of that name, or it is not allocsearch's.
        """
        with explained(self.url):
            study = self._load(name)
            attrs = study.user_attrs
            if _SPEC not in attrs:
                raise InputError(f"study {name!r} must have been made by allocsearch, but it has no spec: choose another name")
            spec = StudySpec.from_json(attrs[_SPEC], where=f"the stored spec of study {name!r}")
            frozen = study.get_trials(deepcopy=False)
            records.check_ours(name, frozen)
            waiting = frozenset(trial.number for trial in frozen if trial.state == TrialState.WAITING)
            beside = self._counted(name)
            trials = with_replicas(tuple(map(records.trial_of, frozen)), beside["replicas"].trials if "replicas" in beside else ())
            wall = _wall_seconds(frozen)
            holder = holder_of(self._storage.engine, name.partition("/")[0])
            driver = None if holder is None else str(holder)
            charges = records.charges(frozen) + tuple(charge for each in beside.values() for charge in each.charges)
            return StudyRecord(name, spec, attrs, trials, waiting, records.base_score(study), linked(study), wall, charges, driver)

    def _counted(self, name: str) -> dict[Companion, StudyRecord]:
        """What was trained beside study `name` and is charged to it."""
        found = {} if _is_companion(name) else {kind: self.companion(name, kind) for kind in _COUNTED}
        return {kind: beside for kind, beside in found.items() if beside is not None}

    def open(self, name: str, spec: StudySpec, proposals: Proposals, ledger: Ledger | None = None) -> OptunaStudy:
        """The study to ask and tell, charged to `ledger`. Only one driver may hold it."""
        with explained(self.url):
            study = self._load(name)
            return OptunaStudy(study, spec, proposals, num_trials=int(study.user_attrs.get(_TARGET, spec.trials)), ledger=ledger)

    def companion(self, name: str, kind: Companion) -> StudyRecord | None:
        """What was trained beside study `name`, or None where nothing was."""
        with explained(self.url):
            there = optuna.get_all_study_names(self._lasting)
        return self.record(f"{name}/{kind}") if f"{name}/{kind}" in there else None

    def open_companion(
        self,
        name: str,
        kind: Companion,
        spec: StudySpec,
        proposals: Proposals,
        attrs: Mapping[str, Any],
        *,
        ledger: Ledger | None = None,
    ) -> OptunaStudy:
        """The companion to put assignments in and run, made with `attrs` if it is not there yet. Only one driver may hold it."""
        own = f"{name}/{kind}"
        if self.companion(name, kind) is None:
            self.create(own, spec, {**attrs, _OF: name})
            with explained(self.url):
                dashboard_content.mark_companion(self._load(own), kind, of=name)
        with explained(self.url):
            return OptunaStudy(self._load(own), spec, proposals, num_trials=None, ledger=ledger)

    def note(self, name: str, key: str, value: Any) -> None:
        """Keep a JSON value with study `name`."""
        with explained(self.url):
            self._load(name).set_user_attr(key, value)

    @property
    def has_dashboard(self) -> bool:
        """Whether `display` is of any use here."""
        return dashboard_content.available()

    def display(self, name: str, graphs: Mapping[str, Any], note: str) -> None:
        """Keep Plotly figures, by a word for each, and a Markdown note for Optuna's dashboard. They replace those before."""
        with explained(self.url):
            dashboard_content.show(self._load(name), graphs, note)

    def retarget(self, name: str, num_trials: int) -> None:
        """Change the target number of finished trials."""
        with explained(self.url):
            self._load(name).set_user_attr(_TARGET, num_trials)

    def delete(self, name: str) -> None:
        """Forget a study that was made a moment ago and could not start."""
        with explained(self.url):
            optuna.delete_study(study_name=name, storage=self._lasting)

    def _load(self, name: str) -> optuna.Study:
        try:
            return optuna.load_study(study_name=name, storage=self._lasting)
        except KeyError:
            names = self.names()
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {shown(names)}" if names else "it has none yet: allocsearch run"
            raise InputError(f"a study named {name!r} must be in the storage, but it is not: {hint}") from None


def _is_companion(name: str) -> bool:
    return name.rpartition("/")[2] in get_args(Companion) and "/" in name


def _wall_seconds(frozen: Sequence[FrozenTrial]) -> float:
    starts = [trial.datetime_start for trial in frozen if trial.datetime_start is not None]
    ends = [trial.datetime_complete for trial in frozen if trial.datetime_complete is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0
