"""Searching from Python: what a search found is an object with the front, figures, frames and exports of one study."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allocsearch import driver, exporting, logs, tables
from allocsearch import spec as specs
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.errors import InfeasibleError
from allocsearch.evidence import Evidence
from allocsearch.exporting import Export, Format
from allocsearch.options import Options
from allocsearch.running import Run
from allocsearch.search import results
from allocsearch.search.results import Pick, Point
from allocsearch.telling import proof

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class SearchResult:
    """A study as it stood when it was read; `load_study` reads it again.

    Attributes:
        record: everything that the storage has of the study.
        storage: its database's URL, as it was given.
        artifacts: where the trials' weights are, as it was given.
    """

    record: StudyRecord
    storage: str | None = field(default=None, repr=False)  # it may hold a password
    artifacts: str | Path | None = None

    def __repr__(self) -> str:
        return f"SearchResult({self.name!r}, {len(results.points(self.record.trials))} of {self.record.num_trials} trials measured)"

    @property
    def name(self) -> str:
        """The study's."""
        return self.record.name

    @property
    def front(self) -> tuple[Point, ...]:
        """The Pareto front of accuracy against trainable parameters on the search rows, smallest first."""
        return tuple(results.pareto(self.record.trials, self.record.spec.metric))

    @property
    def best(self) -> Point:
        """`pick("best")`."""
        return self.pick("best")

    def pick(self, pick: Pick) -> Point:
        """The trial of the highest accuracy, the front's knee, or the smallest within the best one's interval.

        Raises:
            InfeasibleError: where no trial has finished.
        """
        if not results.points(self.record.trials):
            raise InfeasibleError(f"a trial to pick must have finished, but study {self.name!r} has none")
        return results.picked(self.record.trials, pick, self.record.spec.metric)

    def why(self, pick: Pick) -> str:
        """What `pick` means here, in a line, with what the interval does not cover."""
        return results.reason(pick, self.pick(pick), self.record.trials, self.record.spec.metric)

    @cached_property
    def evidence(self) -> Evidence | None:
        """What the test rows say of the best trial; None where the study was not confirmed."""
        return proof(Catalog(self.storage), self.record) if self.front else None

    @cached_property
    def figures(self) -> "dict[str, go.Figure]":
        """The report's Plotly figures by name: `front`, `capacity`, and what else the study has something to show for."""
        from allocsearch.figures import figures  # noqa: PLC0415 - a second to import

        return {figure.name: figure.plot for figure in figures(self.record, self.evidence)}

    def trials_frame(self) -> "pd.DataFrame":
        """Every trial, whatever became of it, as a pandas frame."""
        from allocsearch import frames  # noqa: PLC0415 - as the next ones: half a second to import

        return frames.trials(self.record)

    def front_frame(self) -> "pd.DataFrame":
        """`front` as a pandas frame."""
        from allocsearch import frames  # noqa: PLC0415

        return frames.front(self.record)

    def confirmed_frame(self) -> "pd.DataFrame":
        """What was trained anew and scored on the test rows, the winner first; empty where nothing was."""
        from allocsearch import frames  # noqa: PLC0415

        return frames.confirmed(self.record, self.evidence)

    def leads_frame(self) -> "pd.DataFrame":
        """The winner's paired leads over each baseline on the test rows; empty where nothing was confirmed."""
        from allocsearch import frames  # noqa: PLC0415

        return frames.leads(self.record, self.evidence)

    def export(self, output: str | Path | None = None, *, pick: Pick = "best", trial: int | None = None, form: Format = "yaml") -> Export:
        """Write a trial as `allocsearch export` does. Without `output`, a YAML comes back as `Export.text` and is not written.

        Raises:
            InputError: where the trial has not finished, its weights are needed and were not kept, or the place is taken.
        """
        place = None if output is None else Path(output)
        return exporting.export(Catalog(self.storage), self.name, trial=trial, pick=pick, form=form, output=place, artifacts=self.artifacts)

    def _repr_html_(self) -> str:
        """What a notebook shows: the winner, what is known of it, and the front as a table."""
        from allocsearch.page import summary  # noqa: PLC0415 - Plotly takes a second to import

        return summary(f"Study {self.name}", self._lines(), tables.front(self.front, title="Pareto front on the search split"))

    def _lines(self) -> list[str]:
        record = self.record
        done = f"{record.num_trials - record.num_missing} of {record.num_trials} trials done"
        lines = [f"{record.spec.task.name} on {Path(record.spec.model).name}, budget {record.spec.budget}: {done}"]
        if not self.front:
            return lines
        lines.append(f"winner: trial {self.best.trial.number}, {self.best.trial.assignment.allocation}")
        lines.append(self.why("best"))
        if self.evidence is None:
            return [*lines, "not confirmed on test rows"]
        row, (low, high) = self.evidence.winner, self.evidence.winner.interval
        seeds = f"{len(row.results.seeds)} fresh seed(s)"
        return [*lines, f"on the test rows, {seeds}: accuracy {row.accuracy:.3f} in [{low:.3f}, {high:.3f}]"]


def load_study(name: str, *, storage: str | None = None, artifacts: str | Path | None = None) -> SearchResult:
    """A study of the storage (default: as for the command line), also one that is still running.

    Raises:
        InputError: where there is no such study.
    """
    return SearchResult(Catalog(storage).record(name), storage, artifacts)


def run(
    study: str = "quickstart",
    *,
    storage: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    artifacts: str | Path | None = None,
    inline: bool = False,
    resume: bool = False,
    quiet: bool = False,
    **overrides: Any,
) -> SearchResult:
    """Search, as `allocsearch run` does: `run("quickstart", budget="8M-params", trials=20)`.

    A study of the same name and spec that has ended is read, not run again.

    Args:
        study: a name under `studies/`, or the path of a YAML file.
        storage: a database URL; the default is the command line's.
        workers: trials at a time; the default is one per GPU, or per CPU.
        address: of a Ray cluster that this machine belongs to: `auto` or host:port.
        artifacts: where all workers leave the trials' weights: a folder that they share, or `s3://BUCKET/PREFIX`.
        inline: run trials one by one in this process, without Ray.
        resume: continue a study of the same name and spec that has not ended.
        quiet: print no progress on stderr.
        **overrides: of the spec's top-level keys.

    Raises:
        InputError: for bad input, and where the name stands for another study, or for one that has not ended without `resume`.
        TooManyFailuresError: where too many trials fail. Everything is kept.
    """
    spec = specs.load(study, overrides)
    options = Options(storage, workers, address, artifacts, inline)
    catalog = Catalog(storage)
    there = catalog.record(spec.name) if spec.name in catalog.names() else None
    if there is None or not driver.is_finished(there, spec):
        say = _unheard if quiet else logs.note
        same = there is not None and there.spec.digest == spec.digest
        begun = (
            driver.resume(spec.name, num_trials=spec.trials, options=options, say=say)
            if resume and same
            else driver.start(spec, source=driver.source_of(study, overrides, spec), options=options, say=say)
        )
        with begun as running:
            _drive(running, num_trials=spec.trials, quiet=quiet)
    return load_study(spec.name, storage=storage, artifacts=artifacts)


def _drive(running: Run, *, num_trials: int, quiet: bool) -> None:
    from allocsearch import terminal  # noqa: PLC0415

    with terminal.display(running, num_trials=num_trials, quiet=quiet) as show:
        for trial in running:
            show(trial)
    for staged in running.follow_up():
        if not quiet:
            terminal.stage_line(staged.stage, staged.trial, done=staged.done, total=staged.total)


def _unheard(_line: str) -> None: ...
