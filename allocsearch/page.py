"""A report as one HTML page that needs no network, or as Markdown. What users named is text in both, never markup."""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from allocsearch.markup import escaped
from allocsearch.report import Report, Section
from allocsearch.tables import Grid


def html(report: Report) -> str:
    """One file with everything in it, Plotly's script included (4.8 MB)."""
    plots = {section.figure.name: _plot(section.figure.plot) for section in report.sections if section.figure is not None}
    return _filled("report.html", report=report, plots=plots, plotly=get_plotlyjs() if plots else "", version=version("allocsearch"))


def summary(title: str, lines: Sequence[str], grid: Grid) -> str:
    """A fragment of HTML for a notebook's cell, in the notebook's own colours."""
    return _filled("summary.html", title=title, lines=lines, grid=grid)


def _filled(name: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("allocsearch"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name).render(**values)


def _plot(plot: Any) -> Any:
    """As JSON values, typed arrays and all."""
    return json.loads(plot.to_json())


def markdown(report: Report) -> str:
    """The same without pictures: each figure is the table behind it."""
    parts = [f"# {escaped(report.title)}"]
    if report.about:
        parts.append(escaped(report.about))
    for section in report.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    if section.lines:
        yield "\n".join(f"- {escaped(line)}" for line in section.lines)
    for grid in (*section.grids, *(() if section.figure is None else (section.figure.table,))):
        yield from _grid(grid)
    for name, text in section.listings:
        yield escaped(name)
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        yield f"{fence}\n{text.rstrip()}\n{fence}"


def _grid(grid: Grid) -> Iterator[str]:
    if grid.title:
        yield escaped(grid.title)
    rows = [grid.headings, tuple("---" for _ in grid.headings), *grid.rows]
    lines = []
    for place, row in enumerate(rows):
        cells = row if place == 1 else tuple(escaped(f"{cell:,}" if isinstance(cell, int) else cell) for cell in row)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    yield "\n".join(lines)
