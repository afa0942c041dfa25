"""Keeps what Optuna's dashboard shows of a study up to date while its driver runs: graphs, and a note that explains them.

Only the driver writes. It draws once at the beginning, once at the end of a stage, and between these seldom enough to lose no time over it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import plotly.graph_objects as go

from allocsearch import page
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.commands import command
from allocsearch.backends.study_record import StudyRecord
from allocsearch.core.errors import LostLeaseError
from allocsearch.figures import Figure
from allocsearch.report import Report, Section, searched
from allocsearch.search import results
from allocsearch.telling import tell

_LEAST_PAUSE: Final = 20.0
"""Seconds between two drawings."""
_REST: Final = 50
"""A pause is at least so many times as long as the drawing before it took: the driver loses two per cent at most."""
_NOTED: Final = ("winner", "searched", "comparison")
_INK, _PAPER = "#1c1f24", "#ffffff"

READING: Final = (
    (
        "“Best Trials” is Optuna's own list: the search rows alone, under the seeds of the search. It knows nothing of further seeds, nor "
        "of the test rows; the winner and what is known of it stand in this note."
    ),
    (
        "Every allocation was inside the budget before it was trained. Only finished trials count. Those that a scheduler stopped, or that "
        "did not fit into memory (infeasible), are shown as pruned, those that failed as failed; none of them has values, so that no list "
        "of the best holds one."
    ),
    "What was trained beside the search stands in studies of its own, such as the confirmation. Their trials are not the search's.",
)


class Board:
    """The graphs and the note of one study."""

    def __init__(self, catalog: Catalog, name: str, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog, self._name, self._say, self._clock = catalog, name, say, clock
        self._drawn: dict[str, str] = {}
        self._due = clock()
        self._is_stale = True
        self._has_failed = False
        self._is_off = not catalog.has_dashboard

    def refresh(self) -> None:
        """Something has changed: draw it, unless the last drawing was a moment ago."""
        self._is_stale = True
        if self._clock() >= self._due:
            self.draw()

    def draw(self) -> None:
        """Draw what has changed since the last drawing. A failure is told once; it ends neither the search nor later drawings."""
        if self._is_off or not self._is_stale:
            return
        start = self._clock()
        try:
            self._draw()
        except LostLeaseError:  # the search has ended, whatever the occasion on which that is found
            raise
        except Exception as error:  # noqa: BLE001 - pictures are a courtesy, whatever goes wrong with them
            if not self._has_failed:
                self._say(f"note: the dashboard's graphs could not be drawn, and the run goes on: {type(error).__name__}: {error}")
            self._has_failed = True
        self._is_stale = False
        self._due = self._clock() + max(_LEAST_PAUSE, _REST * (self._clock() - start))

    def _draw(self) -> None:
        record = self._catalog.record(self._name)
        told = tell(self._catalog, record) if results.points(record.trials) else None
        sections = () if told is None else told.sections
        graphs = {section.name: framed(section.figure) for section in sections if section.figure is not None}
        texts = {name: graph.to_json() for name, graph in graphs.items()}
        changed = {name: graph for name, graph in graphs.items() if self._drawn.get(name) != texts[name]}
        self._catalog.display(self._name, changed, note(record, told))
        self._drawn = texts


def note(record: StudyRecord, told: Report | None) -> str:
    """What explains a study on its dashboard, as Markdown. `told` is None before its first trial has finished."""
    sections = (searched(record),) if told is None else tuple(section for section in told.sections if section.name in _NOTED)
    sections = (*sections, _reading(told), _next(record, told), Section("of", f"As of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"))
    return page.markdown(Report(f"Study {record.name}", record.spec.about, sections))


def _reading(told: Report | None) -> Section:
    graphs = () if told is None else tuple(section.figure for section in told.sections if section.figure is not None)
    return Section("reading", "How to read this dashboard", (*READING, *(f"Graph “{graph.title}”: {graph.about}" for graph in graphs)))


def _next(record: StudyRecord, told: Report | None) -> Section:
    """Without the storage, which each reader of the dashboard may reach at an address of their own."""
    if record.num_missing or told is None:
        return Section("next", "Next", ("If its driver is gone:",), listings=(("command", command("resume", record.name)),))
    confirmed = record.is_complete and record.confirmation.candidates > 0
    words = ("export", record.name, "--format", "peft", "-o", "best") if confirmed else ("confirm", record.name)
    return Section("next", "Next", listings=(("command", command(*words)),))


def framed(figure: Figure) -> go.Figure:
    """A figure under its title and on white paper of its own: the dashboard sets neither, and may be dark."""
    margin = figure.plot.layout.margin.to_plotly_json()
    return go.Figure(figure.plot).update_layout(
        title={"text": figure.title, "x": 0.02, "y": 0.97, "yanchor": "top"},
        legend={"orientation": "h", "y": -0.25, "yanchor": "top"},
        margin={**margin, "t": margin.get("t", 30) + 40},
        paper_bgcolor=_PAPER,
        font={"color": _INK},
        height=None,
        autosize=True,
    )
