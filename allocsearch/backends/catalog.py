"""The studies of a storage: making one, finding one, and reading one without the right to change it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain
from typing import Any

import optuna
from optuna.storages import RDBStorage

from allocsearch.backends import dashboard_content
from allocsearch.backends import trial_records as records
from allocsearch.backends.artifacts import linked
from allocsearch.backends.commands import command
from allocsearch.backends.lasting import LastingStorage
from allocsearch.backends.lease import Fence, Lease, holder_of
from allocsearch.backends.optuna_quiet import experimental
from allocsearch.backends.optuna_study import DIRECTIONS, METRICS, OptunaStudy
from allocsearch.backends.schema import require_own
from allocsearch.backends.standing import promising, short_rows, summed, whole_rows
from allocsearch.backends.storage import explained, open_storage, storage_url
from allocsearch.backends.study_names import companions_in, names_in
from allocsearch.backends.study_record import (
    COUNTED,
    OF,
    SPEC,
    TARGET,
    Companion,
    StudyRecord,
)
from allocsearch.backends.trial_records import Row
from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError, shown
from allocsearch.core.trial import Trial
from allocsearch.search import results
from allocsearch.search.finalists import with_replicas
from allocsearch.search.ledger import Ledger
from allocsearch.search.proposals import Proposals
from allocsearch.search.results import Point
from allocsearch.spec import StudySpec


class Catalog:
    """All studies at one storage URL (None: the SQLite file in the home folder)."""

    def __init__(self, url: str | None) -> None:
        self.url, self._given = storage_url(url), url
        self._storage: RDBStorage = open_storage(url)
        self._lasting = LastingStorage(self._storage)
        self._fence = Fence(self._storage.scoped_session.session_factory)

    def command(self, *words: object) -> str:
        """`allocsearch WORDS` on this storage, to be typed next."""
        return command(*words, storage=self._given)

    @contextmanager
    def driving(self, name: str) -> Iterator[None]:
        """Holds the lease of study `name`, its companions included: this catalog writes under it, and no longer.

        Raises:
            InputError: where another driver holds it.
            LostLeaseError: from any later write, where another driver has taken the study over.
        """
        with explained(self.url):
            require_own(self._storage.engine, self.url)
            self._fence.lease = lease = Lease(self._storage.engine, name, see=self.command("status", name))
        with lease.renewed():
            try:
                yield
            except optuna.exceptions.UpdateFinishedTrialError:
                # Somebody else has ended the trial: Optuna looks at that before we look at the lease.
                self._lasting.repeated(lease.confirm)
                raise

    def names(self) -> list[str]:
        """The studies in this storage, allocsearch's or not; companions are left out."""
        with explained(self.url):
            return self._lasting.read(names_in)

    def create(self, name: str, spec: StudySpec, attrs: Mapping[str, Any]) -> None:
        """Make a study with everything that a resume or a reader needs to know of it."""
        with explained(self.url):
            try:
                study = optuna.create_study(storage=self._lasting, study_name=name, directions=list(DIRECTIONS[spec.objective]))
            except optuna.exceptions.DuplicatedStudyError as error:
                raise InputError(f"a new study needs a new name, but {name!r} exists: try {self.command('resume', name)}") from error
            with experimental():
                study.set_metric_names(list(METRICS[spec.objective]))
            # The spec comes last: a study without one was never started, and `record` says so.
            own = {"spec_hash": spec.digest, "budget": spec.budget, TARGET: spec.trials, SPEC: spec.to_json()}
            for key, value in {**attrs, **own}.items():
                study.set_user_attr(key, value)

    def require(self, name: str) -> None:
        """Look whether there is a study, but not at its trials.

        Raises:
            InputError: where there is none of that name, or it is not allocsearch's.
        """
        with explained(self.url):
            _spec_of(name, self._load(name).user_attrs)

    def record(self, name: str) -> StudyRecord:
        """Read a study.

        Raises:
            InputError: where there is none of that name, or it is not allocsearch's.
        """
        with explained(self.url):
            study = self._load(name)
            attrs = study.user_attrs
            spec = _spec_of(name, attrs)
            rows = list(map(records.row_of, study.get_trials(deepcopy=False)))
            records.check_ours(name, rows)
            waiting = frozenset(row.number for row in rows if row.state == "waiting")
            beside = self._counted(name)
            trials = with_replicas(tuple(map(records.trial_of, rows)), beside["replicas"].trials if "replicas" in beside else ())
            wall = records.wall_seconds(rows)
            driver = self._driver(name)
            charges = records.charges_of(rows) + tuple(charge for each in beside.values() for charge in each.charges)
            return StudyRecord(name, spec, attrs, trials, waiting, records.base_score(study), linked(study), wall, charges, driver)

    def _counted(self, name: str) -> dict[Companion, StudyRecord]:
        """What was trained beside study `name` and is charged to it."""
        there = self._beside(name)
        return {kind: self.record(f"{name}/{kind}") for kind in COUNTED if kind in there}

    def glance(self, name: str) -> StudyRecord:
        """How a study stands, in a number of statements that does not grow with it: a record without trials.

        Raises:
            InputError: as `record`.
        """
        with explained(self.url):
            study = self._load(name)
            attrs = study.user_attrs
            spec = _spec_of(name, attrs)
            there = self._beside(name)
            beside = {kind: self._short(f"{name}/{kind}", there[kind]) for kind in COUNTED if kind in there}
            replicas = self._measured(beside.get("replicas", ()))
            rows = self._short(name, _id_of(study), spec.metric, *(["allocation"] if replicas else []))
            leading = self._promising(rows, replicas, metric=spec.metric)
            best = results.picked(leading, "best", spec.metric) if leading else None
            wall = records.wall_seconds(rows)
            standing = summed(rows, best=best, wall_seconds=wall)
            charges = records.charges_of([*rows, *chain.from_iterable(beside.values())])
            base, driver = records.base_score(study), self._driver(name)
            return StudyRecord(name, spec, attrs, (), frozenset(), base, frozenset(), wall, charges, driver, standing)

    def front(self, name: str) -> list[Point]:
        """The Pareto front, for which only the trials that may be on it are read whole.

        Raises:
            InputError: as `record`.
        """
        with explained(self.url):
            study = self._load(name)
            spec = _spec_of(name, study.user_attrs)
            there = self._beside(name)
            replicas = self._measured(self._short(f"{name}/replicas", there["replicas"])) if "replicas" in there else []
            rows = self._short(name, _id_of(study), spec.metric, "allocation")
            return results.pareto(self._promising(rows, replicas, metric=spec.metric, whole_front=True), spec.metric)

    def _driver(self, name: str) -> str | None:
        holder = self._lasting.read(lambda engine: holder_of(engine, name.partition("/")[0]))
        return None if holder is None else str(holder)

    def _short(self, name: str, study_id: int, *also: str) -> list[Row]:
        rows = self._lasting.read(lambda engine: short_rows(engine, study_id, *also))
        records.check_ours(name, rows)
        return rows

    def _measured(self, rows: Sequence[Row]) -> list[Trial]:
        """Those of `rows` that finished, read whole."""
        finished = [row for row in rows if row.state == "finished"]
        return list(map(records.trial_of, self._lasting.read(lambda engine: whole_rows(engine, finished))))

    def _beside(self, name: str) -> Mapping[Companion, int]:
        return self._lasting.read(lambda engine: companions_in(engine, name))

    def _promising(
        self, rows: Sequence[Row], replicas: Sequence[Trial], *, metric: Metric, whole_front: bool = False
    ) -> tuple[Trial, ...]:  # fmt: skip
        known = {str(trial.assignment.allocation) for trial in replicas}
        chosen = promising(rows, replicated=known, metric=metric, whole_front=whole_front)
        return with_replicas(self._measured(chosen), replicas)

    def open(self, name: str, spec: StudySpec, proposals: Proposals, ledger: Ledger | None = None) -> OptunaStudy:
        """The study to ask and tell, charged to `ledger`. Only one driver may hold it."""
        with explained(self.url):
            study = self._load(name)
            return OptunaStudy(study, spec, proposals, num_trials=int(study.user_attrs.get(TARGET, spec.trials)), ledger=ledger)

    def companion(self, name: str, kind: Companion) -> StudyRecord | None:
        """What was trained beside study `name`, or None where nothing was."""
        with explained(self.url):
            return self.record(f"{name}/{kind}") if kind in self._beside(name) else None

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
            self.create(own, spec, {**attrs, OF: name})
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
            self._load(name).set_user_attr(TARGET, num_trials)

    def _load(self, name: str) -> optuna.Study:
        try:
            return optuna.load_study(study_name=name, storage=self._lasting)
        except KeyError:
            names = self.names()
            near = get_close_matches(name, names, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"it has {shown(names)}" if names else f"it has none yet: {self.command('run')}"
            )
            raise InputError(f"a study named {name!r} must be in the storage, but it is not: {hint}") from None


def _spec_of(name: str, attrs: Mapping[str, Any]) -> StudySpec:
    if SPEC not in attrs:
        raise InputError(f"study {name!r} must have been made by allocsearch, but it has no spec: choose another name")
    return StudySpec.from_json(attrs[SPEC], where=f"the stored spec of study {name!r}")


def _id_of(study: optuna.Study) -> int:
    return study._study_id  # noqa: SLF001 - nothing public gives it
