"""A study told from beginning to end: what was searched, what won, how sure that is, and how to do it again.

A report is sections of text, tables, figures and commands; `page` makes HTML or Markdown of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from allocsearch import tables
from allocsearch.backends.commands import command
from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.budget import short_count
from allocsearch.core.choices import Metric
from allocsearch.evidence import Evidence
from allocsearch.figures import Figure, figures
from allocsearch.search import comparison, results
from allocsearch.search.calibration import Calibration
from allocsearch.search.results import Pick, Point
from allocsearch.spec import StudySpec
from allocsearch.tables import Grid
from allocsearch.views import status_json

NOT_COVERED: Final = (
    "Intervals of an accuracy are 95 % Wilson intervals: they cover which rows were drawn, and not the noise of the training seed.",
    (
        "On the search rows the winner is the best of many, so its accuracy there is biased upwards by the selection. Only rows that the "
        "search never saw, under fresh seeds, are free of that."
    ),
    (
        "Differences are paired. Their intervals cover rows and, from two seeds on, seeds; each is of its pair alone. The p-values are "
        "Holm-adjusted."
    ),
    (
        "All of it is about the proxy, a short training on part of the data. Longer trainings, other tasks and other base models may rank "
        "allocations otherwise."
    ),
    "“Not distinguishable” says that these rows and seeds do not show a difference, not that there is none.",
)


@dataclass(frozen=True, slots=True)
class Section:
    """One heading's worth. It shows its parts in this order; a listing is a name and a text to be copied as it is."""

    name: str
    title: str
    lines: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    figure: Figure | None = None
    listings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The whole: `about` is the user's own words on the study."""

    title: str
    about: str
    sections: tuple[Section, ...]


def report(
    record: StudyRecord, found: Evidence | None, calibration: Calibration | None, *, metric: Metric = "accuracy", pick: Pick = "best"
) -> Report:
    """Everything that is known of a study with at least one finished trial.

    Args:
        record: the study.
        found: what the test rows say of the winner; None where it was not confirmed.
        calibration: of the study's proxy, if there is one.
        metric: what differences are measured in.
        pick: how the winner was chosen on the search rows.

    Raises:
        InputError: where no trial has finished.
    """
    winner = results.picked(record.trials, pick, record.spec.metric)
    drawn = [Section(figure.name, figure.title, (figure.about,), figure=figure) for figure in figures(record, found)]
    proof = _on_test_rows(found) if found is not None else _on_search_rows(record, winner, calibration, metric)
    sections = [_winner(record, winner, found, pick), searched(record), *drawn, proof, *_calibration(record, calibration, metric)]
    sections += [*_failures(record), Section("limits", "What the intervals do not cover", NOT_COVERED), _again(record, pick)]
    return Report(f"Study {record.name}", record.spec.about, tuple(sections))


def _winner(record: StudyRecord, winner: Point, found: Evidence | None, pick: Pick) -> Section:
    trial = winner.trial
    why = results.reason(pick, winner, record.trials, record.spec.metric)
    lines = [f"Trial {trial.number} ({trial.origin}) was picked on the search rows: {why}."]
    if found is None:
        lines.append("It was not confirmed: nothing is known of it on rows that the search did not see.")
    else:
        lines += [f"On the test rows: {_test_line(found)}.", *_verdicts(found)]
    if record.num_missing:
        lines.append(f"The search is not complete: {record.num_missing} of {record.num_trials} trials are still to finish.")
    facts = (
        ("allocation, bottom to top", str(trial.assignment.allocation)),
        ("trainable parameters", f"{trial.cost.trainable:,}"),
        ("active parameters per token, at most", f"{trial.cost.active:,}"),
        ("accuracy, search rows", f"{winner.accuracy:.3f}"),
        ("NLL, search rows", f"{winner.nll:.3f}"),
        *((("accuracy of the frozen base, search rows", f"{record.base.accuracy:.3f}"),) if record.base is not None else ()),
    )
    return Section("winner", "The winner", tuple(lines), (Grid("", ("fact", "value"), facts),))


def _test_line(found: Evidence) -> str:
    row = found.winner
    low, high = row.interval
    scores = row.results.scores
    seeds = f"{len(scores)} fresh seed{'s' if len(scores) > 1 else ''}"
    return f"accuracy {row.accuracy:.3f} in [{low:.3f}, {high:.3f}] over {len(scores[0].correct)} rows, {seeds}"


def _verdicts(found: Evidence) -> Iterator[str]:
    for verdict, text in (
        ("better", "The winner is better than"),
        ("worse", "It is worse than"),
        ("not distinguishable", "It is not distinguishable from"),
    ):
        against = [found.row(each.baseline).label for each in found.comparisons if each.verdict == verdict]
        if against:
            yield f"{text}: {', '.join(against)}."
    answer = found.smallest
    if answer is not None and answer.number is not None:
        row = found.row(answer.number)
        size = short_count(row.trial.cost.trainable)
        yield f"The smallest allocation that is not worse by more than {answer.margin:g}: {row.label}, {size} trainable parameters."
    elif answer is not None:
        yield f"No smaller allocation is shown to be not worse by more than {answer.margin:g}."
    if answer is not None and answer.remark is not None:
        yield f"But {answer.remark}."


def searched(record: StudyRecord) -> Section:
    """What the search was: model, task, budget, space, proxy, and how far it has come."""
    spec, status = record.spec, status_json(record)
    proxy = spec.proxy
    counts = ", ".join(f"{number} {state}" for state, number in status["counts"].items() if number)
    facts = (
        ("model", _named(spec.model) if spec.revision is None else f"{_named(spec.model)} at {spec.revision}"),
        ("task", spec.task.name),
        ("budget", spec.budget),
        ("space", spec.space.name),
        ("objective", "accuracy against trainable parameters" if spec.objective == "pareto" else spec.objective),
        ("sampler", f"{spec.sampler}, seed {spec.seed}"),
        ("trials", f"{counts}; target {record.num_trials}"),
        ("router", f"{spec.routing.router}, on {', '.join(spec.routing.routing().targets)}"),
        ("proxy", f"{proxy.num_steps} steps of {proxy.batch_size} rows, {proxy.dtype}, {len(proxy.seeds)} seed(s)"),
        ("rows", f"{proxy.train_rows} to train on, {proxy.search_rows} to search on, {proxy.test_rows} to confirm on, at most"),
        ("worker time, seconds", f"{status['worker_seconds']:.0f}"),
        ("from first start to last end, seconds", f"{record.wall_seconds:.0f}"),
    )
    return Section("searched", "What was searched", grids=(Grid("", ("what", "value"), facts),))


def _on_test_rows(found: Evidence) -> Section:
    grids = [tables.confirmed(found.rows, title="on the test rows, the winner first"), tables.leads(found), tables.smallest(found)]
    lines = ["All were trained anew with seeds that the search never used, and scored on rows that it never saw."]
    if found.comparisons and not found.comparisons[0].covers_seeds:
        lines.append("With one fresh seed, the seeds' noise is not covered.")
    return Section("comparison", "Comparison", tuple(lines), tuple(grid for grid in grids if grid is not None and grid.rows))


def _on_search_rows(record: StudyRecord, winner: Point, calibration: Calibration | None, metric: Metric) -> Section:
    points = results.points(record.trials)
    baselines = [point for point in results.baselines(record.trials) if point.trial.number != winner.trial.number]
    todo = f"On the search rows only, which named the winner; for the last word: {command('confirm', record.name)}"
    if not baselines:
        return Section("comparison", "Comparison", (todo, "No baseline has finished that the winner could be compared with."))
    variance = None if calibration is None else calibration.signal(metric).variances.allocation_seed
    found = comparison.compare(winner, baselines, points, metric=metric, seed_variance=variance)
    lines = [todo, f"The p-values count that the winner is the best of {len(points)} trials (reality check)."]
    if not found[0].covers_seeds:
        lines.append("One seed cannot show its own noise, so p-values and intervals leave it out.")
    shown = tables.front([winner, *baselines], title="the winner and the baselines")
    return Section("comparison", "Comparison", tuple(lines), (shown, tables.compared(found, metric=metric)))


def _calibration(record: StudyRecord, calibration: Calibration | None, metric: Metric) -> Sequence[Section]:
    if calibration is None:
        return ()
    line = "Measured before the search, on allocations and seeds of its own: what this proxy can tell apart."
    return (Section("calibration", "Calibration", (line,), tables.calibrated(calibration, metric=metric, name=record.name)),)


def _failures(record: StudyRecord) -> Sequence[Section]:
    grid = tables.failures(record.trials)
    return (Section("failures", "Failures", (f"Failed or infeasible trials: {len(grid.rows)}.",), (grid,)),) if grid.rows else ()


def _confirmed_later(record: StudyRecord) -> Iterator[str]:
    """The command of a confirmation that the spec does not ask for; what it asks for, `run` does."""
    asked = record.confirmation
    if asked == record.spec.confirmation or not asked.candidates:
        return
    yield command("confirm", record.name, **asked.model_dump())


def _again(record: StudyRecord, pick: Pick) -> Section:
    """Without a storage: who reads the page has another one."""
    commands = (
        command("run", f"{record.name}.yaml", trials=record.num_trials if record.num_trials != record.spec.trials else None),
        *_confirmed_later(record),
        command("compare", record.name, pick=pick),
        command("export", record.name, pick=pick, output=f"{record.name}-{pick}.yaml"),
    )
    versions = tuple((str(package), str(version)) for package, version in dict(record.attrs.get("versions", {})).items())
    digests = tuple((key, str(record.attrs[key])) for key in ("spec_hash", "task_digest", "model_digest") if key in record.attrs)
    document, named = _portable(record.spec)
    spec = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    line = (
        f"Put the spec below into {record.name}.yaml, in a storage that has no study of that name yet. Seeds make proposals and trainings "
        "repeatable; other hardware, another number of workers or other versions may change results."
    )
    lines = [line]
    if named:
        lines.append(f"Files and folders of the machine that ran it are given by name, and belong beside the spec: {', '.join(named)}.")
    grid = Grid("environment", ("what", "value"), versions + digests)
    return Section(
        "again", "How to reproduce", tuple(lines), (grid,), listings=(("commands", "\n".join(commands)), (f"{record.name}.yaml", spec))
    )


def _portable(spec: StudySpec) -> tuple[dict[str, Any], list[str]]:
    """The spec without places of one machine, and the names that took theirs. Names that would be the same keep their folder's, too."""
    document = spec.to_json()
    places = [(document, "model"), (document["task"], "path"), (document["task"], "test_path")]
    local = [(part, key) for part, key in places if part.get(key) is not None and Path(part[key]).is_absolute()]
    names = [_named(part[key]) for part, key in local]
    for (part, key), name in zip(local, names, strict=True):
        path = Path(part[key])
        part[key] = name if names.count(name) == 1 else f"{path.parent.name}/{name}"
    return document, [part[key] for part, key in local]


def _named(place: str) -> str:
    """The last part of an absolute path; any other name as it is."""
    return Path(place).name if Path(place).is_absolute() else place
