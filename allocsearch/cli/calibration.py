"""`calibrate`: what a proxy can resolve, measured before a search."""

from typing import Annotated, Any

import typer

from allocsearch.cli.app import Address, Inline, Json, Storage, Workers, app, interrupted, print_json, say
from allocsearch.core.choices import Metric

_SEEDS, _ROWS = (1, 2, 3, 5), (256, 512, 1024, 2048)


@app.command(epilog="Example: allocsearch calibrate quickstart --allocations 8 --seeds 2")
def calibrate(
    study: Annotated[str, typer.Argument(help="A name under studies/, or a YAML path.")] = "quickstart",
    *,
    budget: Annotated[str | None, typer.Option(help="As for run.")] = None,
    model: Annotated[str | None, typer.Option(help="As for run.")] = None,
    task: Annotated[str | None, typer.Option(help="As for run.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study that will use it. Default: the spec's.")] = None,
    allocations: Annotated[int, typer.Option(min=4, help="Allocations to train.")] = 12,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds for each.")] = 3,
    scores: Annotated[bool, typer.Option("--scores/--no-scores", help="Hold training-free scores against the proxy, too.")] = True,
    one_shot: Annotated[bool, typer.Option("--one-shot", help="And one-shot scores, for which one super-adapter is trained.")] = False,
    metric: Annotated[Metric, typer.Option(help="What the recommendation is for.")] = "accuracy",
    margin: Annotated[float, typer.Option(min=0.01, help="The difference to resolve: points of accuracy, or mnat of NLL.")] = 1.0,
    workers: Workers = None,
    storage: Storage = None,
    address: Address = None,
    inline: Inline = False,
    as_json: Json = False,
) -> None:
    """Measure seed noise and rank correlations on your own model and task, and what seeds and rows can resolve."""
    from allocsearch import spec as specs, terminal  # noqa: PLC0415, I001 - imports torch
    from allocsearch.calibrating import calibrating, default_scores  # noqa: PLC0415
    from allocsearch.core.warm_starts import ONE_SHOT  # noqa: PLC0415
    from allocsearch.search.recommendation import UNITS, recommend  # noqa: PLC0415
    from allocsearch.workplace import Options  # noqa: PLC0415

    parsed = specs.load(study, {"budget": budget, "model": model, "task": task, "name": name})
    options = Options(storage, workers, address, None, inline)
    with calibrating(parsed, num_allocations=allocations, num_seeds=seeds, options=options, say=say) as running:
        try:
            for staged in running:
                terminal.stage_line(staged.stage, staged.trial, done=staged.done, total=staged.total)
        except BaseException as error:
            if interrupted(error):
                terminal.err.print(f"interrupted; everything is kept. Continue with: allocsearch calibrate {study}", markup=False)
                raise KeyboardInterrupt from error
            raise
        found = running.result([*(default_scores(parsed) if scores else ()), *((ONE_SHOT,) if one_shot else ())])
    advice = recommend(found, metric=metric, difference=margin / UNITS[metric][0])
    if as_json:
        print_json({"study": parsed.name, "calibration": found.to_json(), "recommendation": advice.to_json()})
        return
    _show(terminal, found, advice, metric=metric, name=parsed.name)


def _show(terminal: Any, found: Any, advice: Any, *, metric: Metric, name: str) -> None:
    from allocsearch.search.recommendation import UNITS  # noqa: PLC0415

    scale, unit = UNITS[metric]
    signal = found.signal(metric)
    terminal.out.print(
        terminal.rows_table(
            f"{name}: {found.num_allocations} allocations × {len(found.seeds)} seeds, {found.num_rows} search rows, {metric}",
            ["noise", unit, "95 % interval"],
            [
                [label, f"{scale * one.value:.2f}", f"[{scale * one.low:.2f}, {scale * one.high:.2f}]"]
                for label, one in (
                    ("seeds of one allocation", signal.seed_sd),
                    ("left of it in pairs of common seeds", signal.paired_seed_sd),
                    ("between allocations, noise taken off", signal.allocation_sd),
                )
            ],
        )
    )
    agreements = [("another seed's end (the ceiling)", signal.noise_ceiling), ("number of parameters", signal.parameters)]
    agreements += [(f"rung {step} of {found.num_steps} steps", signal.rungs[step]) for step in sorted(signal.rungs)]
    agreements += [(f"score {label}", signal.scores[label]) for label in signal.scores]
    rows = [
        [label, f"{one.spearman.value:+.2f}", f"[{one.spearman.low:+.2f}, {one.spearman.high:+.2f}]", f"{one.kendall.value:+.2f}"]
        for label, one in agreements
    ]
    terminal.out.print(
        terminal.rows_table("\nrank agreement with the end on other seeds", ["of", "Spearman", "95 % interval", "Kendall"], rows)
    )
    grid = [[n, *(f"{scale * found.resolvable(n, m, metric=metric):.1f}" for m in _ROWS)] for n in _SEEDS]
    title = f"\nsmallest difference that a paired test finds with power 0.8, in {unit}"
    terminal.out.print(terminal.rows_table(title, ["seeds", *(f"{m} rows" for m in _ROWS)], grid))
    for line in _advice(advice, scale=scale, unit=unit):
        terminal.out.print(line, markup=False)


def _advice(advice: Any, *, scale: float, unit: str) -> list[str]:
    wanted = f"{scale * advice.difference:g} {unit}"
    split = (
        f"to resolve {wanted}: {advice.num_seeds} seeds on {advice.num_rows} search rows"
        if advice.num_seeds is not None
        else f"to resolve {wanted}: more than eight seeds; look for a larger difference, or train longer"
    )
    length = (
        f"proxy: {advice.num_steps} steps rank as well as another seed's end does"
        if advice.long_enough
        else f"proxy: ranks still change when its {advice.num_steps} steps end; make it longer"
    )
    rungs = f"rungs: {', '.join(map(str, advice.rungs))}" if advice.rungs else "rungs: none tells the end well enough to stop trials at"
    return ["", split, length, rungs]
