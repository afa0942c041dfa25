"""`calibrate`: what a proxy can resolve, measured before a search."""

from typing import Annotated, Any

import typer

from allocsearch import logs
from allocsearch.cli.app import app, loading, print_json, say
from allocsearch.cli.completing import study_names
from allocsearch.cli.interrupts import resumable
from allocsearch.cli.launch import STUDY_FILE, Launch, launches, submit
from allocsearch.core.choices import Metric


@app.command(epilog="Example: allocsearch calibrate quickstart --allocations 8 --seeds 2")
@launches
def calibrate(
    launch: Launch,
    study: Annotated[str, typer.Argument(help="A name under studies/, or a YAML path.", autocompletion=study_names)] = "quickstart",
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
) -> None:
    """Measure seed noise and rank correlations on your own model and task, and what seeds and rows can resolve."""
    from allocsearch import spec as specs  # noqa: PLC0415 - imports pydantic
    from allocsearch.backends.commands import flags  # noqa: PLC0415 - imports SQLAlchemy
    from allocsearch.core.warm_starts import ONE_SHOT  # noqa: PLC0415
    from allocsearch.search.recommendation import UNITS, recommend  # noqa: PLC0415

    parsed = specs.load(study, {"budget": budget, "model": model, "task": task, "name": name})
    with loading():
        from allocsearch import terminal  # noqa: PLC0415
        from allocsearch.calibrating import calibrating, scores_of  # noqa: PLC0415
    known = scores_of(parsed, one_shot=one_shot)  # before hours of training, not after them
    wanted = [each for each in known if scores or each == ONE_SHOT]
    asked = {
        "allocations": allocations,
        "seeds": seeds,
        "no_scores": not scores,
        "one_shot": one_shot,
        "metric": metric,
        "margin": margin,
    }
    if launch.submit is not None:
        submit(launch, parsed.name, ["calibrate", STUDY_FILE, *flags(asked)], spec=parsed)
    of_study = {"budget": budget, "model": model, "task": task, "name": name}
    with (
        logs.about(study=parsed.name),
        calibrating(parsed, num_allocations=allocations, num_seeds=seeds, options=launch.options, say=say) as running,
    ):
        with resumable(lambda: launch.command("calibrate", study, *flags({**of_study, **asked}))):
            for staged in running:
                terminal.stage_line(staged.stage, staged.trial, done=staged.done, total=staged.total)
        found = running.result(wanted)
    advice = recommend(found, metric=metric, difference=margin / UNITS[metric][0])
    if launch.as_json:
        print_json({"study": parsed.name, "calibration": found.to_json(), "recommendation": advice.to_json()})
        return
    _show(terminal, found, advice, metric=metric, name=parsed.name)


def _show(terminal: Any, found: Any, advice: Any, *, metric: Metric, name: str) -> None:
    from allocsearch import tables  # noqa: PLC0415
    from allocsearch.search.recommendation import UNITS  # noqa: PLC0415

    scale, unit = UNITS[metric]
    for number, cells in enumerate(tables.calibrated(found, metric=metric, name=name)):
        terminal.out.print("\n" * bool(number), end="")
        terminal.out.print(terminal.grid_table(cells))
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
