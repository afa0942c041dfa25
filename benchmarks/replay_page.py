"""The replay's measures, table and figure."""

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots
from replay_search import ABLATIONS, DEFAULT, INFORMATIVE, STRATEGIES
from sampling import cell, interval, verdict

from allocsearch.core.front import Candidate, hypervolume, pareto_front

REFERENCE = "random-feasible"
SHOWN = (0.125, 0.25, 0.5, 1.0)  # of the tokens
MEASURES = {
    "regret": ("Regret: points between the table's best true mean at the budget and that of the *named* allocation", "smaller"),
    "tried": ("The same for the best allocation *tried*", "smaller"),
    "selection": ("Selection regret: points between the best tried and the named allocation", "smaller"),
    "hypervolume": ("True hypervolume of the named front, in per cent of the table's", "larger"),
}
OF_MODE = {"budget": ("regret", "tried", "selection"), "pareto": ("hypervolume", "regret", "selection")}


def standing(table, trials, truth, *, mode):
    """Where a search stands; before anything finished, the named allocation is the table's worst."""
    best, worst = max(truth[row.number] for row in table.inside), min(truth[row.number] for row in table.rows)
    finished = [trial for trial in trials if trial.accuracy is not None]
    named = truth[max(finished, key=lambda trial: trial.accuracy).row.number] if finished else worst
    tried = max((truth[trial.row.number] for trial in finished), default=worst)
    found = {"regret": 100 * (best - named), "tried": 100 * (best - tried), "selection": 100 * (tried - named), "trials": len(trials)}
    found |= {"hypervolume": _share_of_hypervolume(table, finished, truth, worst)} if mode == "pareto" else {}
    return {measure: round(value, 4) for measure, value in found.items()}


def _share_of_hypervolume(table, finished, truth, worst):
    front = pareto_front([Candidate(i, trial.accuracy, trial.row.trainable, (0, 1)) for i, trial in enumerate(finished)])
    rows = [finished[c.number].row for c in front]
    limits = {"worst_score": worst, "max_params": table.budget.max_trainable}
    own, whole = (
        hypervolume([Candidate(row.number, truth[row.number], row.trainable, (0, 1)) for row in of], **limits) for of in (rows, table.rows)
    )
    return 100 * own / whole


PAGE = """# Search strategies replayed on tables of trained allocations

{date}, {repetitions} repetitions a strategy; optuna {optuna}, numpy {numpy}, python {python}, {cpu_seconds} s of CPU time. Raw numbers:
`replay.json`; anytime curves with intervals: `replay_figure.json` (`plotly.io.read_json`), drawn below.

A sampler proposes in a space with a count and a rank for every layer, on its target; of the unseen allocations of about that size (a
tenth more or less), the nearest stands for the proposal (distance: over layers, log2(1 + experts × rank) and log2(1 + experts)), and
the sampler learns from that allocation. Repetition r sees one seed, each in turn; the truth is the mean over the other seeds. *Named*
is what the search would hand out: the best accuracy that it saw. Halving of our own starts at the first rung whose NLL ranks like the
end's (correlation {trusted} or more); ASHA decides at every rung, on accuracy. Trainings are replayed one after the other. The table's
best true mean is itself a maximum of noisy means, so every regret is too large by the same amount. Brackets: 95 % bootstrap intervals
over repetitions, which share the table and its few seeds: they do not say what another table would show. Differences are paired, and not
corrected for their number.

![Anytime curves of all strategies on all tables](replay.png)
"""
TABLE = """
## {table}

{num_allocations} allocations with seeds {seeds} ({num_left_out} left out, as incomplete or not one count and one rank a layer); each
search has the tokens of {num_trainings} full trainings. Rank correlation of the rungs with the end: {agreement}; halving starts at step
{first_rung}.
"""
RACE = """A race gives the best few of a search a second seed and names the best mean; their tokens are taken from the search. Its truth,
and that of the search without it, is of the seeds that neither saw. The table has no single rows: with two seeds they don't decide who
leads."""
CURVES = {
    "budget": ("regret", "regret at one budget, points"),
    "pareto": ("hypervolume", "hypervolume, per cent"),
}
COLOURS = qualitative.Dark24[: len(STRATEGIES)]
TITLES = {"budget": "At one budget", "pareto": "The whole front"}


def markdown(found):
    """The page."""
    lines = [PAGE.format(**found["about"], repetitions=found["num_repetitions"], trusted=INFORMATIVE)]
    for table in found["tables"]:
        agreement = ", ".join(f"{value:.2f} at step {step}" for step, value in table["agreement"].items())
        lines.append(TABLE.format(**{**table, "seeds": ", ".join(map(str, table["seeds"])), "agreement": agreement}))
        for mode, title in TITLES.items():
            lines += [f"### {title}", ""]
            for measure in OF_MODE[mode]:
                lines += _table(table, mode, measure)
        lines += _ablations(table)
    return "\n".join(lines)


def _values(table, mode, strategy, measure, at=-1):
    runs = next(case["runs"] for case in table["cases"] if (case["mode"], case["strategy"]) == (mode, strategy))
    return np.array([run[at][measure] for run in runs])


def _table(table, mode, measure):
    title, better = MEASURES[measure]
    places = [round(share * len(table["tokens"])) - 1 for share in SHOWN]
    tokens = [f"{table['tokens'][place]:,} tokens" for place in places]
    lines = [
        f"{title}. {better.capitalize()} is better.",
        "",
        f"| strategy | {' | '.join(tokens)} | trials | against {REFERENCE} |",
        f"|---|{'---:|' * len(tokens)}---:|---|",
    ]
    for name in STRATEGIES:
        cells = [cell(interval(_values(table, mode, name, measure, place))) for place in places]
        difference = _difference(table, mode, measure, name, REFERENCE) if name != REFERENCE else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {_values(table, mode, name, 'trials').mean():.0f} | {difference} |")
    return [*lines, ""]


def _difference(table, mode, measure, one, other):
    apart = _values(table, mode, one, measure) - _values(table, mode, other, measure)
    return verdict(interval(apart), better=MEASURES[measure][1])


def _ablations(table):
    lines = [
        "### Ablations",
        "",
        "With against without, paired, at the end.",
        "",
        "| what | regret at one budget | hypervolume of the front |",
    ]
    lines.append("|---|---|---|")
    for what, on, off in ABLATIONS:
        cells = [_difference(table, mode, measure, on, off) for mode, measure in (("budget", "regret"), ("pareto", "hypervolume"))]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    for race in table["races"]:
        apart = interval(np.subtract(race["with"], race["without"]))
        lines.append(f"| race, {race['strategy']} | {verdict(apart, better='smaller')} | |")
    return [*lines, "", RACE if table["races"] else "No race: it takes three seeds, two to see and one to be the truth.", ""]


def figure(found):
    """Anytime curves with their 95 % bands: a row of panels per table, a column per mode."""
    panels = [(table, mode) for table in found["tables"] for mode in CURVES]
    titles = [f"{table['table']}: {CURVES[mode][1]}" for table, mode in panels]
    drawn = make_subplots(rows=len(found["tables"]), cols=len(CURVES), subplot_titles=titles, vertical_spacing=0.12)
    for at, (table, mode) in enumerate(panels):
        row, column = divmod(at, len(CURVES))
        for name, colour in zip(STRATEGIES, COLOURS, strict=True):
            for trace in _curve(table, mode, name, colour, in_legend=at == 0):
                drawn.add_trace(trace, row=row + 1, col=column + 1)
    drawn.update_xaxes(title_text="training tokens", rangemode="tozero")
    size = {"height": 420 * len(found["tables"]), "width": 1200, "margin": {"t": 40, "r": 10}}
    return drawn.update_layout(template="plotly_white", legend={"font_size": 11}, **size)


def _curve(table, mode, name, colour, *, in_legend):
    curve = [interval(_values(table, mode, name, CURVES[mode][0], at)) for at in range(len(table["tokens"]))]
    mean, low, high = (list(line) for line in zip(*curve, strict=True))
    tokens, group = table["tokens"], {"legendgroup": name}
    around = {"x": [*tokens, *reversed(tokens)], "y": [*high, *reversed(low)], "fill": "toself", "fillcolor": colour, "opacity": 0.08}
    yield go.Scatter(**around, **group, mode="none", showlegend=False, hoverinfo="skip")
    wide = 3 if name in (REFERENCE, DEFAULT) else 1.5
    yield go.Scatter(x=tokens, y=mean, **group, name=name, mode="lines", line={"color": colour, "width": wide}, showlegend=in_legend)
