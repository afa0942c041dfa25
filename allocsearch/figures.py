"""A study as pictures: Plotly figures, each with the table of what it shows and a sentence for who cannot see it.

Colours keep a contrast of 3:1 against white and against near-black, and no meaning hangs on colour alone. Backgrounds are transparent, so
that a page decides on light or dark. Plotly reads some HTML in texts, so what a user named is escaped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean
from typing import Any, Final

import plotly.graph_objects as go

from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.budget import Budget, short_count
from allocsearch.core.origins import is_baseline
from allocsearch.core.trial import Failed, Infeasible, Measured, RungScore, Stopped, Trial
from allocsearch.evidence import Evidence
from allocsearch.search import capacity, results
from allocsearch.search.results import Point
from allocsearch.tables import Grid

BLUE, ORANGE, GREEN, GREY = "#2f7fd1", "#c8640a", "#1f8a5b", "#7a7f87"
_GRID: Final = "rgba(128,128,128,0.3)"
_SCALE: Final = [[0.0, "rgba(128,128,128,0.15)"], [1.0, BLUE]]
_RANGE: Final = [[0.0, ORANGE], [0.5, GREY], [1.0, BLUE]]
_MARKS: Final = {
    "finished": (BLUE, "circle"),
    "stopped": (ORANGE, "triangle-down"),
    "infeasible": (GREY, "square-x-open"),
    "failed": (GREY, "x"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture.

    Attributes:
        name: a word for addresses and keys.
        about: what it shows and how it is to be read, in a sentence or two.
        plot: the Plotly figure.
        table: the numbers behind it.
    """

    name: str
    title: str
    about: str
    plot: go.Figure
    table: Grid


def figures(record: StudyRecord, found: Evidence | None) -> list[Figure]:
    """All that the study has something to show for."""
    drawn = [front(record, found), heat_map(record), parallel(record), rungs(record), budget_use(record)]
    return [figure for figure in drawn if figure is not None]


def front(record: StudyRecord, found: Evidence | None) -> Figure | None:
    """Accuracy against trainable parameters: front, other trials and baselines on the search rows, and what the test rows said."""
    best = results.pareto(record.trials, record.spec.metric)
    if not best:
        return None
    numbers = {point.trial.number for point in best}
    others = [p for p in results.points(record.trials) if p.trial.number not in numbers and not is_baseline(p.trial.origin)]
    baselines = results.baselines(record.trials)
    confirmed = () if found is None else found.rows
    plot = go.Figure()
    plot.add_trace(_measured(others, "other trials", GREY, "circle-open", intervals=False))
    plot.add_trace(_measured(baselines, "baselines", ORANGE, "square-open"))
    plot.add_trace(_measured(best, "front", BLUE, "circle", mode="lines+markers"))
    if confirmed:
        sizes, scores = [row.trial.cost.trainable for row in confirmed], [row.accuracy for row in confirmed]
        texts = [f"{row.label}, test rows<br>{row.trial.assignment.allocation}" for row in confirmed]
        spans = [row.interval for row in confirmed]
        plot.add_trace(_scatter(sizes, scores, spans, texts, name="confirmed, test rows", colour=GREEN, symbol="diamond"))
    table = Grid(
        "",
        ("which", "split", "trainable", "accuracy", "low", "high"),
        (
            *(_front_row(p, "front") for p in best),
            *(_front_row(p, "baseline") for p in baselines if p.trial.number not in numbers),
            *(_front_row(p, "other") for p in others),
            *(_cells(row.label, "test", row.trial.cost.trainable, row.accuracy, row.interval) for row in confirmed),
        ),
    )
    about = "Accuracy against trainable parameters; bars are 95 % Wilson intervals over rows. The front is named on the search rows."
    return Figure("front", "Pareto front", about, _axes(plot, "trainable parameters", "accuracy"), table)


def heat_map(record: StudyRecord) -> Figure | None:
    """Total rank per layer and part of each allocation of the front."""
    best = results.pareto(record.trials, record.spec.metric)
    if not best:
        return None
    allocations = [point.trial.assignment.allocation for point in best]
    parts = capacity.parts(allocations)
    columns, values = [], []
    for point, allocation in zip(best, allocations, strict=True):
        for label, part in parts.items():
            columns.append(f"{point.trial.number}" if len(parts) == 1 else f"{point.trial.number} {label}")
            values.append(capacity.capacity(allocation, part))
    layers = list(range(len(allocations[0])))
    hover = "trial %{x}<br>layer %{y}<br>total rank %{z}<extra></extra>"
    z = [list(row) for row in zip(*values, strict=True)]
    plot = go.Figure(
        go.Heatmap(x=columns, y=layers, z=z, colorscale=_SCALE, colorbar={"title": {"text": "total rank"}}, hovertemplate=hover)
    )
    _axes(plot, "trial of the front, smallest first", "layer, bottom to top")
    plot.update_xaxes(type="category")
    plot.update_yaxes(type="category")
    table = Grid("", ("layer", *columns), tuple((layer, *row) for layer, row in zip(layers, z, strict=True)))
    about = "Where the front's allocations put their capacity: the sum of the experts' ranks (widths, lengths) per layer and target."
    return Figure("capacity", "Capacity per layer and target", about, plot, table)


def parallel(record: StudyRecord) -> Figure | None:
    """Every measured proposal as a line through what differs between them."""
    points = results.points(record.trials)
    proposed = [point for point in points if not is_baseline(point.trial.origin)]
    points = proposed if len(proposed) > 1 else points
    found = capacity.dimensions([point.trial.assignment.allocation for point in points]) if len(points) > 1 else []
    if not found:
        return None
    found.append(capacity.Dimension("trainable", tuple(float(point.trial.cost.trainable) for point in points)))
    accuracy = [point.accuracy for point in points]
    axes = [{"label": one.label, "values": list(one.values)} for one in found]
    line = {"color": accuracy, "colorscale": _RANGE, "showscale": True, "colorbar": {"title": {"text": "accuracy"}}}
    plot = go.Figure(go.Parcoords(dimensions=[*axes, {"label": "accuracy", "values": accuracy}], line=line, labelangle=-45))
    _style(plot).update_layout(margin={"l": 60, "r": 60, "t": 150, "b": 30})
    rows = zip((point.trial.number for point in points), *(one.values for one in found), accuracy, strict=True)
    cells = tuple((number, *(f"{value:g}" for value in values[:-1]), f"{values[-1]:.4f}") for number, *values in rows)
    table = Grid("", ("trial", *(one.label for one in found), "accuracy"), cells)
    about = "Each line is a measured trial that was searched for. Neighbouring layers that are always alike share an axis."
    return Figure("dimensions", "Dimensions of the search", about, plot, table)


def rungs(record: StudyRecord) -> Figure | None:
    """What trials reported on their way; None where none did."""
    curves = [(trial, _curve(trial.outcome.rungs)) for trial in record.trials if isinstance(trial.outcome, Measured | Stopped)]
    curves = [(trial, curve) for trial, curve in curves if curve]
    if not curves:
        return None
    plot, shown, rows = go.Figure(), set[str](), list[tuple[str | int, ...]]()
    for trial, curve in curves:
        state, end = "stopped" if isinstance(trial.outcome, Stopped) else "finished", list[tuple[int, float]]()
        if isinstance(trial.outcome, Measured):
            end = [(record.spec.proxy.num_steps, trial.outcome.accuracy)]
        colour, symbol = _MARKS[state]
        steps, scores = zip(*curve, *end, strict=True)
        marker = {"color": colour, "symbol": symbol, "size": 7}
        line = {"color": colour, "width": 1, "dash": "dot" if state == "stopped" else "solid"}
        options = {"name": state, "legendgroup": state, "showlegend": state not in shown, "text": _text(trial), "hoverinfo": "x+y+text"}
        plot.add_trace(go.Scatter(x=steps, y=scores, mode="lines+markers", marker=marker, line=line, opacity=0.7, **options))
        shown.add(state)
        rows += [(trial.number, state, step, f"{score:.4f}") for step, score in zip(steps, scores, strict=True)]
    about = "Accuracy on the search rows at each rung, and at the end of those trials that were not stopped before; mean over seeds."
    table = Grid("", ("trial", "outcome", "training step", "accuracy"), tuple(rows))
    return Figure("rungs", "Rung curves", about, _axes(plot, "training steps", "accuracy"), table)


def budget_use(record: StudyRecord) -> Figure | None:
    """Trainable parameters of every ended trial against the budget."""
    ended = [(trial, _state(trial)) for trial in record.trials]
    plot = go.Figure()
    for state, (colour, symbol) in _MARKS.items():
        of = [trial for trial, its in ended if its == state]
        marker = {"color": colour, "symbol": symbol, "size": 8}
        texts = [_text(trial) for trial in of]
        x, y = [trial.number for trial in of], [trial.cost.trainable for trial in of]
        if of:
            plot.add_trace(go.Scatter(x=x, y=y, mode="markers", name=state, marker=marker, text=texts, hoverinfo="x+y+text"))
    if not plot.data:
        return None
    limit = Budget.parse(record.spec.budget).max_trainable
    if limit is not None:
        plot.add_hline(y=limit, line={"color": GREY, "dash": "dash"}, annotation_text=f"budget, {short_count(limit)}")
    plot.update_yaxes(rangemode="tozero")
    rows = tuple(
        (t.number, t.origin, state, t.cost.trainable, t.cost.active, f"{100 * t.share:.0f} %") for t, state in ended if state in _MARKS
    )
    table = Grid("", ("trial", "origin", "outcome", "trainable", "active", "meant to use"), rows)
    about = f"Trainable parameters of every ended trial. The budget is {record.spec.budget}; in a search for a front, trials aim at shares."
    return Figure("budget", "Budget use", about, _axes(plot, "trial", "trainable parameters"), table)


def _measured(points: Sequence[Point], name: str, colour: str, symbol: str, *, intervals: bool = True, mode: str = "markers") -> go.Scatter:
    sizes, scores = [p.trial.cost.trainable for p in points], [p.accuracy for p in points]
    spans = [p.interval for p in points] if intervals else None
    texts = [f"trial {p.trial.number} ({p.trial.origin})<br>{p.trial.assignment.allocation}" for p in points]
    return _scatter(sizes, scores, spans, texts, name=name, colour=colour, symbol=symbol, mode=mode)


def _scatter(
    x: Sequence[float],
    y: Sequence[float],
    spans: Sequence[tuple[float, float]] | None,
    texts: Sequence[str],
    *,
    name: str,
    colour: str,
    symbol: str,
    mode: str = "markers",
) -> go.Scatter:
    bars = None
    if spans is not None:
        pairs = list(zip(spans, y, strict=True))
        up, down = [max(0.0, high - value) for (_, high), value in pairs], [max(0.0, value - low) for (low, _), value in pairs]
        bars = {"type": "data", "array": up, "arrayminus": down, "symmetric": False, "thickness": 1, "width": 3}
    marker = {"color": colour, "symbol": symbol, "size": 9}
    plain = [_plain(text) for text in texts]
    return go.Scatter(x=x, y=y, error_y=bars, mode=mode, name=name, marker=marker, line={"color": colour}, text=plain, hoverinfo="x+y+text")


def _front_row(point: Point, kind: str) -> tuple[str | int, ...]:
    label = f"{kind}: trial {point.trial.number} ({point.trial.origin})"
    return _cells(label, "search", point.trial.cost.trainable, point.accuracy, point.interval)


def _cells(label: str, split: str, trainable: int, accuracy: float, interval: tuple[float, float]) -> tuple[str | int, ...]:
    return (label, split, trainable, f"{accuracy:.4f}", *(f"{end:.4f}" for end in interval))


def _curve(reported: Sequence[RungScore]) -> list[tuple[int, float]]:
    steps = sorted({one.step for one in reported})
    return [(step, fmean(one.accuracy for one in reported if one.step == step)) for step in steps]


def _state(trial: Trial) -> str:
    kinds: dict[type, str] = {Measured: "finished", Stopped: "stopped", Infeasible: "infeasible", Failed: "failed"}
    return kinds.get(type(trial.outcome), "running")


def _text(trial: Trial) -> str:
    return _plain(f"trial {trial.number} ({trial.origin})<br>{trial.assignment.allocation}")


def _plain(text: str) -> str:
    """Escaped but for our own line breaks."""
    return "<br>".join(escape(line, quote=False) for line in text.split("<br>"))


def _style(plot: go.Figure) -> go.Figure:
    clear = "rgba(0,0,0,0)"
    return plot.update_layout(
        template="none",
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        height=440,
        margin={"l": 70, "r": 20, "t": 30, "b": 60},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )


def _axes(plot: go.Figure, x: str, y: str) -> go.Figure:
    _style(plot)
    for update, title in ((plot.update_xaxes, x), (plot.update_yaxes, y)):
        update_axis: Callable[..., Any] = update
        update_axis(title={"text": title}, gridcolor=_GRID, zeroline=False, automargin=True)
    return plot
