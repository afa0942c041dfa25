"""What a user sees: tables, a live view where there is a terminal, plain lines where there is none."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from allocsearch import logs
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import short_count
from allocsearch.core.choices import Metric
from allocsearch.core.trial import Failed, Infeasible, Measured, Stopped, Trial
from allocsearch.search import capacity, results
from allocsearch.search.register import Register
from allocsearch.search.results import Pace, Point

if TYPE_CHECKING:  # the module loads Optuna, which a table does not need
    from allocsearch.tables import Grid

_WORDS: Final = frozenset({"95 % rows", "origin", "which"})
_PIPE_WIDTH: Final = 200  # where no terminal states a width, tables must not be squeezed into 80 columns


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, soft_wrap=True, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, soft_wrap=True, highlight=False, width=_PIPE_WIDTH)


out: Final = _console(stderr=False)
err: Final = _console(stderr=True)


class RunView(Protocol):
    """The part of a run that a display reads."""

    name: str
    metric: Metric
    pace: Pace

    @property
    def register(self) -> Register:
        """The trials so far, counted."""
        ...


def front_table(points: Sequence[Point], *, title: str, bars: bool = False) -> Table:
    """A table of measured trials; `bars` draws each allocation, too, on one scale for all."""
    from allocsearch import tables  # noqa: PLC0415 - imports Optuna

    allocations = [point.trial.assignment.allocation for point in points]
    return drawn_table(tables.front(points, title=title), allocations if bars else None)


def drawn_table(cells: "Grid", allocations: Sequence[Allocation] | None) -> Table:
    """A grid that ends with allocations, each drawn under its text where `allocations` are given, a row's each."""
    table = Table(title=cells.title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for heading in cells.headings[:-1]:
        table.add_column(heading, justify="left" if heading in _WORDS else "right", no_wrap=True)
    table.add_column(cells.headings[-1], overflow="fold")
    shapes = ("",) * len(cells.rows) if allocations is None else _bars(allocations)
    for row, shape in zip(cells.rows, shapes, strict=True):
        table.add_row(*(Text(str(cell)) for cell in row[:-1]), Text(str(row[-1])) + Text(shape, style="cyan"))
    return table


def shape(allocation: str) -> str:
    """An allocation's text, drawn: a line of its own."""
    return next(_bars([Allocation.parse(allocation)]))


def _bars(allocations: Sequence[Allocation]) -> Iterator[str]:
    """A line per allocation: experts and mean rank of each layer, bottom to top."""
    profiles = [capacity.profile(allocation) for allocation in allocations]
    most = [max((value for both in profiles for value in both[side]), default=0) for side in (0, 1)]
    for experts, ranks in profiles:
        yield f"\nexperts {capacity.bars(experts, top=most[0])}  ranks {capacity.bars(ranks, top=most[1])}"


def grid_table(cells: "Grid") -> Table:
    """Any grid."""
    return rows_table(cells.title, cells.headings, cells.rows)


def rows_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A plain table; numbers are right-aligned."""
    table = Table(title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for i, heading in enumerate(headings):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    return table


def duration(seconds: float | None) -> str:
    """`1 h 02 min`, `3 min 20 s` or `12 s`."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole >= 3600:  # noqa: PLR2004 - seconds in an hour
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"  # noqa: PLR2004


def trial_line(trial: Trial) -> str:
    """One ended trial as one line."""
    head = f"trial {trial.number:>3}  {short_count(trial.cost.trainable):>8}"
    match trial.outcome:
        case Measured() as measured:
            tail = f"accuracy {measured.accuracy:.3f}  NLL {measured.nll:.3f}  {measured.seconds:5.1f} s"
        case Stopped() as stopped:
            tail = "stopped" + "".join(f" at step {at.step}  accuracy {at.accuracy:.3f}  NLL {at.nll:.3f}" for at in stopped.rungs[-1:])
        case Failed() as failed:
            tail = f"failed: {failed.reason}"
        case Infeasible() as infeasible:
            tail = f"infeasible: {infeasible.reason}"
        case _:
            tail = f"worker lost on attempt {trial.attempt}, runs again"
    return f"{head}  {tail}  {trial.origin:<10} {trial.assignment.allocation}"


def stage_line(stage: str, trial: Trial, *, done: int, total: int) -> None:
    """Prints one ended trial of what follows a search."""
    if logs.as_json():
        logs.log_trial(trial, stage=stage, done=done, total=total)
        return
    err.print(Text(f"{stage} {trial_line(trial)}   [{done}/{total}]"))


@contextmanager
def display(run: RunView, *, num_trials: int, quiet: bool = False) -> Iterator[Any]:
    """Calls back with each ended trial: redraws a live view on a terminal, prints lines elsewhere."""
    if quiet:
        yield lambda _trial: None
        return
    if logs.as_json():
        yield lambda trial: logs.log_trial(trial, stage="search", done=run.register.num_finished, total=num_trials)
        return
    if not err.is_terminal:

        def plain(trial: Trial) -> None:
            err.print(Text(f"{trial_line(trial)}   [{_tally(run, num_trials)}]"))
            sys.stderr.flush()

        yield plain
        return
    with Live(_dashboard(run, num_trials), console=err, refresh_per_second=2, get_renderable=lambda: _dashboard(run, num_trials)):
        yield lambda _trial: None


def _tally(run: RunView, num_trials: int) -> str:
    found = run.register
    best = "no result yet" if found.best is None else _best(found.best, run.metric)
    left = run.pace.seconds_left(num_trials - found.num_finished)
    failed = f", {found.num_failed} failed" if found.num_failed else ""
    return f"{found.num_finished}/{num_trials}{failed}, {best}, {run.pace.trials_per_hour:.0f}/h, {duration(left)} left"


def _best(trial: Trial, metric: Metric) -> str:
    assert isinstance(trial.outcome, Measured), "the best is sought among measured trials"
    value = f"{trial.outcome.accuracy:.3f}" if metric == "accuracy" else f"NLL {trial.outcome.nll:.3f}"
    return f"best {value} (trial {trial.number})"


def _dashboard(run: RunView, num_trials: int) -> Table:
    grid = Table.grid(padding=(0, 0, 1, 0))
    done = run.register.num_finished
    width = 40
    filled = width * done // max(1, num_trials)
    bar = Text("━" * filled, style="green") + Text("━" * (width - filled), style="dim")
    grid.add_row(Text(f"{run.name}  ") + bar + Text(f"  {_tally(run, num_trials)}, {duration(run.pace.seconds)} so far"))
    front = results.pareto(run.register.front, run.metric)
    if front:
        grid.add_row(front_table(front[-12:], title="Pareto front so far"))
    for trial in run.register.recent:
        grid.add_row(Text(trial_line(trial), style="dim", overflow="ellipsis", no_wrap=True))
    return grid
