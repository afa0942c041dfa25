"""The composition root: from a spec to a plan, and from a plan to a run that can be resumed after any kind of death."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from allocsearch import spec as specs
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.study_record import LIMITS, StudyRecord
from allocsearch.core.choices import Metric
from allocsearch.core.errors import InputError, shown
from allocsearch.documents import named, validated
from allocsearch.evidence import calibration_of
from allocsearch.limits_spec import NEUTRAL, SPENDING, LimitsSpec
from allocsearch.options import HERE, Options
from allocsearch.planning import Plan, plan
from allocsearch.running import SCORED, TRANSFERRED, Run
from allocsearch.scores.starts import scored_starts
from allocsearch.search import recommendation
from allocsearch.search.recommendation import warning
from allocsearch.search.transfer import transferred
from allocsearch.spec import ConfirmationSpec, StudySpec
from allocsearch.workplace import Say, prepare, versions

_NUM_TRANSFERRED: Final = 5
_MAY_CHANGE: Final = ("trials:", "name:", "about:", "resources.", "replication.", "confirmation.", *(f"limits.{name}" for name in NEUTRAL))
"""Parts of a spec that change nothing of what was found so far."""
_NOT_READ_AGAIN: Final = ("trials:", "replication.", "confirmation.")
"""Those of them that a resume takes from the database, and `name` and `about`, which nobody expects to do anything."""
_FILED: Final = "filed_limits"
"""The attribute that holds the limits on spending that the study's file has been given since the study began."""


@contextmanager
def start(
    spec: StudySpec,
    *,
    source: Mapping[str, Any] | None = None,
    options: Options = HERE,
    say: Say = lambda _: None,
) -> Iterator[Run]:
    """A new study, ready to run. All that can be wrong is checked before anything is written.

    Raises:
        InputError: for bad input, and where a study of that name exists, with the command that continues it.
    """
    name = spec.name
    planned = plan(spec)
    catalog = Catalog(options.storage)
    if name in catalog.names():
        raise _exists(catalog.record(name), spec, resume=options.command("resume", name))
    earlier = _transferred(planned, catalog)
    _warn(catalog, spec, say)
    evaluator, digests = prepare(spec, name, options, say)
    with catalog.driving(name):
        made = {"versions": versions(), "shape_digest": planned.shape.digest, "source": dict(source or {})}
        attrs = {**digests, **made, TRANSFERRED: earlier, SCORED: _scored(planned, evaluator.model, say)}
        catalog.create(name, spec, attrs)
        yield Run(catalog, catalog.record(name), planned, evaluator=evaluator, options=options, say=say)


@contextmanager
def resume(
    name: str,
    *,
    num_trials: int | None = None,
    limits: Mapping[str, float] | None = None,
    confirmation: ConfirmationSpec | None = None,
    options: Options = HERE,
    say: Say = lambda _: None,
) -> Iterator[Run]:
    """An existing study, continued to its target number of trials (or to `num_trials`, if that is more).

    `confirmation` takes the place of what the spec says of it, but for a margin that it leaves open; so do `limits` on spending, by their
    names in the spec. Where the study's file was edited, its resources and its limits on spending hold from now on.

    Raises:
        InputError: where there is no such study, another driver runs it, or the spec, the model or the data have changed.
    """
    catalog = Catalog(options.storage)
    record = catalog.record(name)
    spec = _unchanged(record, num_trials or record.num_trials, say)
    validated(LimitsSpec, limits or {}, where="limits", given=(limits or {}).keys())
    refiled = _refiled(record, spec, say)
    if num_trials is not None and num_trials < record.num_trials - record.num_missing:
        raise InputError(
            f"`--trials` must be at least what has finished, but got {num_trials} with {record.num_trials - record.num_missing} done"
        )
    if confirmation is not None and confirmation.margin is None:
        confirmation = confirmation.model_copy(update={"margin": record.confirmation.margin})
    planned = plan(spec)
    evaluator, digests = prepare(spec, name, options, say)
    for key, digest in digests.items():
        if record.attrs.get(key, digest) != digest:
            what = key.removesuffix("_digest")
            raise InputError(
                f"the {what} of a resumed study must be the one that it began with, but {record.attrs[key]} became {digest}: "
                f"restore it, or start a new study"
            )
    with catalog.driving(name):
        if num_trials is not None:
            catalog.retarget(name, num_trials)
        if refiled:
            catalog.note(name, _FILED, {**record.attrs.get(_FILED, {}), **refiled})
        if refiled or limits:
            catalog.note(name, LIMITS, {**record.attrs.get(LIMITS, {}), **refiled, **(limits or {})})
        record = catalog.record(name)
        yield Run(catalog, record, planned, evaluator=evaluator, options=options, say=say, confirmation=confirmation)


def source_of(study: str, overrides: Mapping[str, Any], spec: StudySpec) -> dict[str, Any]:
    """The file that `spec` came from, so that a resume can tell whether it was edited since; nothing for a shipped study."""
    if study in named("studies"):
        return {}
    resolved = spec.to_json()  # a path that the user typed must mean the same from any other folder
    given = {key: resolved[key] for key, value in overrides.items() if value is not None}
    return {"file": str(Path(study).expanduser().resolve()), "overrides": given}


def _scored(planned: Plan, model: str, say: Say) -> list[dict[str, Any]]:
    """The warm starts by score, to be stored: a resumed study must not depend on computing them again."""
    starts = scored_starts(planned.scored, planned.spec, model=model, shape=planned.shape, budget=planned.budget)
    for start in starts:
        found = "the budget has no room for it" if start.allocation is None else str(start.allocation)
        say(f"warm start {start.name} ({start.seconds:.1f} s): {found}")
    return [start.to_json() for start in starts]


def _transferred(planned: Plan, catalog: Catalog) -> list[dict[str, str]]:
    """The starts from an earlier study, to be stored: that study may go on, or go away."""
    if planned.spec.warm_from is None:
        return []
    earlier = catalog.record(planned.spec.warm_from)
    found = transferred(
        earlier.trials, planned.proposals, study=earlier.name, count=min(_NUM_TRANSFERRED, planned.spec.trials), metric=earlier.spec.metric
    )
    return [start.to_json() for start in found]


def _warn(catalog: Catalog, spec: StudySpec, say: Say) -> None:
    """One line where a calibration of this study says that its plan cannot resolve what it looks for."""
    measured = calibration_of(catalog, spec)
    if measured is None:
        return
    metric: Metric = "nll" if spec.objective == "nll" else "accuracy"
    first = spec.scheduler.first_rung  # earlier rungs decide nothing
    rungs = () if first is None else tuple(step for step in spec.proxy.rungs if step >= first)
    line = warning(recommendation.Plan(len(spec.proxy.seeds), spec.proxy.search_rows, rungs, metric), measured)
    if line is not None:
        say(f"note: {line}")


def _exists(record: StudyRecord, spec: StudySpec, *, resume: str) -> InputError:
    changes = specs.diff(record.spec, spec)
    changes = [change for change in changes if not change.startswith(("name:", "resources."))]
    if changes:
        return InputError(
            f"a new study needs a new name, but {record.name!r} exists with another spec ({shown(changes, limit=3)}): give --name, "
            f"or continue that one with: {resume}"
        )
    return InputError(
        f"study {record.name!r} exists already, with {record.num_trials - record.num_missing} of {record.num_trials} trials done: "
        f"continue it with: {resume}"
    )


def is_finished(record: StudyRecord, spec: StudySpec) -> bool:
    """Whether `record` is a study of this very spec with nothing left to do."""
    return record.spec.digest == spec.digest and record.num_trials == spec.trials and record.is_complete


def _unchanged(record: StudyRecord, num_trials: int, say: Say) -> StudySpec:
    """The spec of `record`, with what its file says now of the machine, of spending, and of how often trials under way are kept."""
    source = record.attrs.get("source") or {}
    file = source.get("file")
    if file is None or not Path(file).is_file():  # the one in the database is the study's; the file was only its first form
        return record.spec.model_copy(update={"limits": _filed_limits(record)})
    now = specs.load(file, source.get("overrides", {}), confined=False)  # what it names was allowed when the study began
    found = specs.diff(record.spec, now)
    changes = [change for change in found if not change.startswith(_MAY_CHANGE)]
    if changes:
        raise InputError(
            f"the spec of a resumed study must be the one that it began with, but {file} has changed ({shown(changes, limit=5)}): "
            f"undo that, or start a new study with --name"
        )
    heeded = ("confirmation.margin:", *(("trials:",) if now.trials == num_trials else ()))  # `run --margin` stands in no file
    unread = [change for change in found if change.startswith(_NOT_READ_AGAIN) and not change.startswith(heeded)]
    if unread:
        say(f"note: a resume does not read {shown(unread, limit=5)} in {file}: give --trials, and what follows to allocsearch confirm")
    return record.spec.model_copy(update={"limits": now.limits, "resources": now.resources})


def _filed_limits(record: StudyRecord) -> LimitsSpec:
    """The limits that the study's file had when it was last read."""
    return record.spec.limits.model_copy(update=record.attrs.get(_FILED, {}))


def _refiled(record: StudyRecord, spec: StudySpec, say: Say) -> dict[str, Any]:
    """The limits on spending that have changed in the study's file since: what was said last holds, there or by an option."""
    before, now = _filed_limits(record), spec.limits
    changed = {name: getattr(now, name) for name in SPENDING if getattr(now, name) != getattr(before, name)}
    for name, value in changed.items():
        say(f"`limits.{name}` in the study's file is {'no longer set' if value is None else f'{value:,} now'}: that holds from here on")
    return changed
