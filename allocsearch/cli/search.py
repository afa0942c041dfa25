"""`run` and `resume`. Heavy libraries are imported by the command that needs them, so that `--help` and tables stay quick."""

from typing import Annotated, Any

import typer

from allocsearch import logs
from allocsearch.cli.app import Name, app, loading, print_json, say
from allocsearch.cli.completing import model_names, space_names, study_names
from allocsearch.cli.interrupts import resumable
from allocsearch.cli.launch import STUDY_FILE, LongLaunch, launches, submit
from allocsearch.core.choices import Objective, Sampler
from allocsearch.core.errors import InfeasibleError, LostLeaseError
from allocsearch.metrics import Meter, metered


@app.command(epilog="Example: allocsearch run --budget 8M-params")
@launches
def run(
    launch: LongLaunch,
    study: Annotated[str, typer.Argument(help="A name under studies/, or a YAML path.", autocompletion=study_names)] = "quickstart",
    *,
    budget: Annotated[str | None, typer.Option(help="Such as 50M-params, 8M-active or 1.5%, joined by commas.")] = None,
    model: Annotated[str | None, typer.Option(help="A built-in name, a hub id or a folder.", autocompletion=model_names)] = None,
    task: Annotated[str | None, typer.Option(help="A built-in name, or a YAML file that states a task.")] = None,
    space: Annotated[str | None, typer.Option(help="A name under search_spaces/, or a YAML path.", autocompletion=space_names)] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Finished trials to reach.")] = None,
    objective: Annotated[Objective | None, typer.Option(help="What to optimise.")] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="Who proposes allocations.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study. Default: the spec's.")] = None,
    margin: Annotated[
        float | None, typer.Option(min=0.01, max=99, help="Name the smallest allocation not worse than the winner by more points.")
    ] = None,
    warm_from: Annotated[str | None, typer.Option(help="An earlier study in the storage; its best allocations are tried first.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")] = False,
) -> None:
    """Search allocations of a study. Without STUDY: quickstart, on the built-in model and task."""
    from allocsearch import spec as specs  # noqa: PLC0415 - imports pydantic

    overrides = {
        "budget": budget, "model": model, "task": task, "space": space, "trials": trials, "objective": objective,
        "sampler": sampler, "seed": seed, "name": name, "warm_from": warm_from,
    }  # fmt: skip
    parsed = specs.load(study, overrides)
    if margin is not None:
        parsed = parsed.model_copy(update={"confirmation": parsed.confirmation.model_copy(update={"margin": margin})})
        if parsed.confirmation.candidates == 0:
            confirm = launch.command("confirm", parsed.name)
            say(f"note: a margin is for the test rows, and this study has no confirmation: it is kept for {confirm}")
    name = parsed.name
    if launch.submit is not None and not dry_run:
        submit(launch, name, ["run", STUDY_FILE], spec=parsed)
    with loading():
        from allocsearch import driver  # noqa: PLC0415
    if dry_run:
        _show_plan(parsed, name, launch.options, as_json=launch.as_json)
        return
    if _finished_before(driver, parsed, name, launch.storage):
        say(f"study {name!r} of the same spec is finished already; this is its result")
        _show_result(launch, name)
        return
    source = driver.source_of(study, overrides, parsed)
    with (
        logs.about(study=name),
        metered(launch.metrics_port, launch.metrics_host) as meter,
        driver.start(parsed, source=source, options=launch.options, say=say) as running,
    ):
        _drive(running, meter, launch, num_trials=parsed.trials, again=["resume", name])


@app.command(epilog="Example: allocsearch resume quickstart")
@launches
def resume(
    launch: LongLaunch,
    name: Name,
    *,
    trials: Annotated[int | None, typer.Option(min=1, help="A new target number of finished trials.")] = None,
    max_hours: Annotated[float | None, typer.Option(min=0, help="A new limit of hours with trials in training, of all drivers.")] = None,
    max_gpu_hours: Annotated[float | None, typer.Option(min=0, help="A new limit of GPU hours, of all drivers.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="A new limit of tokens to train on, of all drivers.")] = None,
) -> None:
    """Continue a study to its target number of trials, after any kind of death."""
    spending = {"max_hours": max_hours, "max_gpu_hours": max_gpu_hours, "max_tokens": max_tokens}
    from allocsearch.backends.commands import flags  # noqa: PLC0415 - imports SQLAlchemy

    if launch.submit is not None:
        submit(launch, name, ["resume", name, *flags({"trials": trials, **spending})])
    with loading():
        from allocsearch import driver  # noqa: PLC0415
    limits = {key: value for key, value in spending.items() if value is not None}
    with (
        logs.about(study=name),
        metered(launch.metrics_port, launch.metrics_host) as meter,
        driver.resume(name, num_trials=trials, limits=limits, options=launch.options, say=say) as running,
    ):
        _drive(running, meter, launch, num_trials=running.record.num_trials, again=["resume", name])


@app.command(epilog="Example: allocsearch confirm quickstart --seeds 3")
@launches
def confirm(
    launch: LongLaunch,
    name: Name,
    *,
    candidates: Annotated[int, typer.Option(min=1, help="Allocations of the search to train anew, baselines not counted.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds for each.")] = 3,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=99, help="Name the smallest allocation not worse than the winner by more points. Default: what `run` was given."
        ),
    ] = None,
    random_trials: Annotated[
        int | None, typer.Option(min=0, help="Random allocations whose best is a baseline. Default: as many as the sampler proposed.")
    ] = None,
) -> None:
    """Train the best few and all baselines anew with fresh seeds, and score them on the test rows. Continues after any death."""
    from allocsearch.backends.commands import flags  # noqa: PLC0415 - imports SQLAlchemy
    from allocsearch.spec import ConfirmationSpec  # noqa: PLC0415

    wanted = ConfirmationSpec(candidates=candidates, seeds=seeds, random_trials=random_trials, margin=margin)
    words = ["confirm", name, *flags(wanted.model_dump())]
    if launch.submit is not None:
        submit(launch, name, words)
    with loading():
        from allocsearch import driver  # noqa: PLC0415
    with (
        logs.about(study=name),
        metered(launch.metrics_port, launch.metrics_host) as meter,
        driver.resume(name, confirmation=wanted, options=launch.options, say=say) as running,
    ):
        _drive(running, meter, launch, num_trials=running.record.num_trials, again=words, search=False)


def _drive(running: Any, meter: Meter, launch: LongLaunch, *, num_trials: int, again: list[str], search: bool = True) -> None:
    from allocsearch import terminal  # noqa: PLC0415

    meter.begin(running.name, running.trials, target=num_trials)
    try:
        with resumable(lambda: launch.command(*again)):
            if search:
                with terminal.display(running, num_trials=num_trials) as show:
                    for trial in running:
                        show(trial)
                        meter.count(trial)
            for staged in running.follow_up():
                terminal.stage_line(staged.stage, staged.trial, done=staged.done, total=staged.total)
                meter.count(staged.trial, stage=staged.stage)
    except Exception as error:  # the reason: whatever stopped it is raised again, once the way back is told
        if not isinstance(error, InfeasibleError | LostLeaseError):
            say(f"paused; everything is kept. After mending the cause: {launch.command(*again)}")
        raise
    _show_result(launch, running.name)


def _show_result(launch: LongLaunch, name: str) -> None:
    from allocsearch import terminal, views  # noqa: PLC0415
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415
    from allocsearch.backends.commands import command  # noqa: PLC0415
    from allocsearch.cli.comparing import show_evidence  # noqa: PLC0415
    from allocsearch.evidence import evidence, evidence_json  # noqa: PLC0415
    from allocsearch.search import results  # noqa: PLC0415

    catalog = Catalog(launch.storage)
    record = catalog.record(name)
    points = results.pareto(record.trials, record.spec.metric)
    if not points:
        raise InfeasibleError(
            f"a result needs a finished trial, but study {name!r} has none: see {command('status', name, storage=launch.storage)}"
        )
    winner, margin = results.picked(record.trials, "best", record.spec.metric), record.confirmation.margin
    found = evidence(catalog, record, trial=winner.trial.number, margin=None if margin is None else margin / 100)
    if launch.as_json:
        proof = None if found is None else evidence_json(record, found)
        why = results.reason("best", winner, record.trials, record.spec.metric)
        print_json({**views.front_json(record), "winner": views.point_json(winner), "why": why, "evidence": proof})
        return
    title = f"{name}: Pareto front on the search split, {len(results.points(record.trials))} trials"
    terminal.out.print(terminal.front_table(points, title=title))
    terminal.out.print(f"\nwinner: trial {winner.trial.number}, {winner.trial.assignment.allocation}", markup=False)
    terminal.out.print(f"  {results.reason('best', winner, record.trials, record.spec.metric)}", markup=False)
    if record.base is not None:
        terminal.out.print(f"  the frozen base scores {record.base.accuracy:.3f} on the same rows", markup=False)
    if found is None:
        terminal.out.print(f"\nto be sure of it: {launch.command('confirm', name)}", markup=False)
    else:
        show_evidence(record, found, margin=margin, as_json=False)
    export = command("export", name, "--format", "peft", "-o", "best", storage=launch.storage, artifacts=launch.artifacts)
    terminal.out.print(f"next: {export}", markup=False)


def _show_plan(parsed: Any, name: str, options: Any, *, as_json: bool) -> None:
    from allocsearch import terminal, views  # noqa: PLC0415
    from allocsearch.planning import plan  # noqa: PLC0415
    from allocsearch.training.estimate import seconds_of_trial  # noqa: PLC0415
    from allocsearch.workplace import num_workers  # noqa: PLC0415

    planned = plan(parsed)
    workers = num_workers(parsed, options)
    seconds = seconds_of_trial(planned.shape, parsed.proxy) * -(-parsed.trials // workers)
    found = views.plan_json(planned, seconds=seconds, name=name, workers=workers)
    if as_json:
        print_json(found)
        return
    model, space = found["model"], found["space"]
    terminal.out.print(f"study      {name}, spec {found['spec_hash']}", markup=False)
    terminal.out.print(
        f"model      {model['name']}: {model['architecture']}, {model['layers']} layers, {model['parameters']:,} parameters", markup=False
    )
    terminal.out.print(f"task       {found['task']}", markup=False)
    terminal.out.print(f"budget     {found['budget']['text']}: at most {planned.budget}", markup=False)
    terminal.out.print(f"space      {space['name']}: {len(space['dimensions'])} dimensions, {space['points']:,} points", markup=False)
    terminal.out.print(
        f"trials     {found['trials']} of {found['steps']} steps × {len(found['seeds'])} seed(s), on {workers} worker(s)", markup=False
    )
    terminal.out.print(f"time       about {terminal.duration(seconds)}, a rough estimate from this machine's speed", markup=False)
    after = ", ".join(f"{number} {kind}" for kind, number in found["max_trainings_after"].items() if number)
    terminal.out.print(f"after it   at most {after} trainings\n" if after else "after it   nothing\n", markup=False)
    headings = ["warm start", "trainable", "active", "allocation"]
    rows = [
        [s["name"] + (" (baseline)" if s["baseline"] else ""), s["trainable"], s["active"], s["allocation"]] for s in found["warm_starts"]
    ]
    terminal.out.print(terminal.rows_table("", headings, rows))
    rows = [[f"example {i + 1}", e["trainable"], e["active"], e["allocation"]] for i, e in enumerate(found["examples"])]
    terminal.out.print(terminal.rows_table("", ["proposal", "trainable", "active", "allocation"], rows))


def _finished_before(driver: Any, parsed: Any, name: str, storage: str | None) -> bool:
    """Whether that very study has ended already."""
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415

    catalog = Catalog(storage)
    return name in catalog.names() and bool(driver.is_finished(catalog.record(name), parsed))
