"""`compare`: whether a winner can be told apart from what nobody searched for."""

from typing import Annotated, Any, Literal

import typer

from allocsearch.cli.app import Json, Name, Storage, app, print_json
from allocsearch.core.choices import Metric
from allocsearch.core.errors import InfeasibleError


@app.command(epilog="Example: allocsearch compare quickstart")
def compare(
    name: Name,
    *,
    pick: Annotated[Literal["best", "knee", "smallest"], typer.Option(help="Which trial is the winner.")] = "best",
    metric: Annotated[Metric | None, typer.Option(help="What leads are measured in. Default: what the study ranks by.")] = None,
    margin: Annotated[
        float | None, typer.Option(min=0.01, help="Name the smallest allocation not worse by more: points of accuracy, or mnat of NLL.")
    ] = None,
    against: Annotated[list[str] | None, typer.Option(help="Another confirmed study whose winner is compared with, too.")] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """The winner against the baselines: paired differences with intervals, and whether they can be told apart.

    On the test rows where the study was confirmed, else on the search rows.
    """
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.commands import command  # noqa: PLC0415
    from allocsearch.evidence import calibration_of, evidence  # noqa: PLC0415
    from allocsearch.search import results  # noqa: PLC0415

    catalog = Catalog(storage)
    record = catalog.record(name)
    metric = metric or record.spec.metric
    margin = record.confirmation.margin if margin is None and metric == "accuracy" else margin
    share = None if margin is None else margin / (100 if metric == "accuracy" else 1000)
    winner = results.picked(record.trials, pick, record.spec.metric).trial.number
    measured = calibration_of(catalog, record.spec)
    noise = None if measured is None else measured.signal(metric).variances
    found = evidence(catalog, record, trial=winner, metric=metric, margin=share, against=against or (), noise=noise)
    if found is not None:
        show_evidence(record, found, margin=margin, as_json=as_json)
        return
    confirm = command("confirm", name, storage=storage)
    if catalog.companion(name, "confirmation") is not None:
        raise InfeasibleError(f"trial {winner} ({pick}) must have been confirmed, but it has not: {confirm}")
    if margin is not None or against:
        raise InfeasibleError(f"a margin and other studies need results on the test rows, but {name!r} has none: {confirm}")
    _compare_on_search_rows(record, pick=pick, metric=metric, noise=noise, as_json=as_json, confirm=confirm)


def show_evidence(record: Any, found: Any, *, margin: float | None, as_json: bool) -> None:
    """What the test rows say, as tables or as JSON."""
    from allocsearch import tables, terminal  # noqa: PLC0415
    from allocsearch.evidence import evidence_json  # noqa: PLC0415

    if as_json:
        print_json(evidence_json(record, found))
        return
    cells = tables.confirmed(found.rows, title=f"{record.name} on the test rows, the winner first")
    allocations = [row.trial.assignment.allocation for row in found.rows]
    terminal.out.print(terminal.drawn_table(cells, allocations if terminal.out.is_terminal else None))
    if found.comparisons:
        terminal.out.print(terminal.grid_table(tables.leads(found)))
        first = found.comparisons[0]
        seeds = f"{len(first.seeds)} fresh seeds" if first.covers_seeds else "one fresh seed, whose own noise is not covered"
        line = f"{first.num_rows} test rows × {seeds}, paired; p is Holm-adjusted. The winner was named on the search rows."
        terminal.out.print(line, style="dim")
    if margin is None:
        return
    if found.smallest is None:
        terminal.out.print("\nno smaller allocation of the front was confirmed: give `confirm` more candidates", markup=False)
        return
    terminal.out.print(f"\n{_margin_line(found, margin)}", markup=False)


def _margin_line(found: Any, margin: float) -> str:
    unit = "points" if found.metric == "accuracy" else "mnat"
    answer = found.smallest
    if answer.number is None:
        line = f"no smaller allocation is shown to be not worse by more than {margin:g} {unit}"
    else:
        row = found.row(answer.number)
        line = f"smallest that is not worse by more than {margin:g} {unit}: {row.label}, {row.trial.assignment.allocation}"
    return line if answer.remark is None else f"{line}; {answer.remark}"


def _compare_on_search_rows(record: Any, *, pick: Any, metric: Any, noise: Any, as_json: bool, confirm: str) -> None:
    from allocsearch import tables, terminal, views  # noqa: PLC0415
    from allocsearch.search import comparison, results  # noqa: PLC0415

    name = record.name
    winner = results.picked(record.trials, pick, record.spec.metric)
    baselines = [point for point in results.baselines(record.trials) if point.trial.number != winner.trial.number]
    if not baselines:
        raise InfeasibleError(
            f"a comparison needs a finished baseline, but {name!r} has none besides the winner: list `warm_starts` in its spec"
        )
    variance = None if noise is None else noise.allocation_seed
    found = comparison.compare(winner, baselines, results.points(record.trials), metric=metric, seed_variance=variance)
    if as_json:
        print_json(views.compare_json(record, winner, found, metric=metric))
        return
    shown = [winner, *baselines] if terminal.out.is_terminal else [winner]
    terminal.out.print(terminal.front_table(shown, title=f"{name}: the winner ({pick})", bars=terminal.out.is_terminal))
    terminal.out.print(terminal.grid_table(tables.compared(found, metric=metric)))
    seeds = len(found[0].seeds)
    terminal.out.print(
        f"Search split, {found[0].num_rows} rows × {seeds} common seed{'s' if seeds > 1 else ''}, paired. p counts that the winner is the "
        f"best of {len(results.points(record.trials))} trials (reality check), Holm-adjusted over the baselines.",
        style="dim",
    )
    if not found[0].covers_seeds:
        line = f"One seed cannot show its own noise, so p and interval leave it out: see allocsearch calibrate --help, or {confirm}"
        terminal.out.print(line, style="dim")
