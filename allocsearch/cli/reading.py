"""`status`, `front` and `export`: what a study has found. They work while it runs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from allocsearch.cli.app import Artifacts, Json, Name, Storage, app, loading, print_json, say
from allocsearch.cli.completing import stored_names
from allocsearch.core.errors import InfeasibleError, InputError, shown

_NUM_RETRIED: Final = 5


@app.command(epilog="Example: allocsearch status quickstart")
def status(
    name: Annotated[str | None, typer.Argument(help="The study's name; without one, all studies.", autocompletion=stored_names)] = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it live until it is complete or q is pressed; in a pipe, a line a change.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds between two looks of --watch.")] = 2.0,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Counts per state, best so far, time and compute spent."""
    from allocsearch import views  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415

    catalog = Catalog(storage)
    if watch:
        from allocsearch import watching  # noqa: PLC0415

        if as_json:
            raise InputError("--json prints one document, but --watch goes on: leave one of them out")
        if name is None:
            raise InputError(f"--watch needs the name of a study, but got none: the storage has {shown(catalog.names()) or 'none yet'}")
        watching.watch(lambda: catalog.glance(name), lambda: catalog.front(name), every=every)
        return
    if name is None:
        _show_names(catalog.names(), start=catalog.command("run", "--budget", "8M-params"), as_json=as_json)
        return
    found = views.status_json(catalog.glance(name))
    if as_json:
        print_json(found)
    else:
        _show_status(found, storage)


def _show_names(names: list[str], *, start: str, as_json: bool) -> None:
    if as_json:
        print_json({"studies": names})
    elif names:
        typer.echo("\n".join(names))
    else:
        say(f"no study yet; start one with: {start}")


def _show_status(found: dict[str, Any], storage: str | None) -> None:
    from allocsearch import terminal  # noqa: PLC0415
    from allocsearch.backends.commands import command  # noqa: PLC0415

    counts, best = found["counts"], found["best"]
    rows = [[state, counts[state]] for state in counts]
    terminal.out.print(
        terminal.rows_table(f"{found['study']}: {found['task']} on {found['model']}, {found['budget']}", ["trials", "number"], rows)
    )
    spent, wall = terminal.duration(found["worker_seconds"]), terminal.duration(found["wall_seconds"])
    pace = f", {found['trials_per_hour']:.0f} an hour" if found["trials_per_hour"] else ""
    left = f", about {terminal.duration(found['seconds_left'])} left at that pace" if found["seconds_left"] else ""
    done = counts["finished"] + counts["stopped"] + counts["infeasible"]
    terminal.out.print(f"{done} of {found['target_trials']} done in {wall} ({spent} of worker time){pace}{left}", markup=False)
    for line in _spending(found):
        terminal.out.print(line, markup=False)
    if best is not None:
        line = f"best so far: trial {best['trial']}, accuracy {best['accuracy']:.3f} on the search split: {best['allocation']}"
        terminal.out.print(line + (terminal.shape(best["allocation"]) if terminal.out.is_terminal else ""), markup=False)
    for line in _ends(found):
        terminal.out.print(line, markup=False)
    if found["driver"] is not None:
        say(f"{found['driver']} is running it")
    elif not found["complete"]:
        say(f"no driver is running it; continue with: {command('resume', found['study'], storage=storage)}")


def _spending(found: dict[str, Any]) -> Iterator[str]:
    """A line for each limit that there is."""
    for unit in ("hours", "gpu_hours", "tokens"):
        limit = found["limits"][f"max_{unit}"]
        if limit is not None:
            spent, name = found["spent"][unit], unit.replace("gpu_", "GPU ")
            yield f"{spent if unit == 'tokens' else round(spent, 3):,} of {limit:,} {name} spent"


def _ends(found: dict[str, Any]) -> Iterator[str]:
    """How trials ended that did not finish, and which ran again."""
    for step, count in found["stopped_at"].items():
        yield f"stopped at step {step}: {count}"
    if found["retried"]:
        again = ", ".join(f"trial {one['trial']} (attempt {one['attempt']})" for one in found["retried"][-_NUM_RETRIED:])
        yield f"lost and dispatched again: {again}"
    for state, word in (("failures", "failed"), ("infeasible", "is infeasible")):
        for vain in found[state][-3:]:
            yield f"trial {vain['trial']} {word}: {vain['reason']}"


@app.command(epilog="Example: allocsearch front quickstart --json")
def front(name: Name, storage: Storage = None, as_json: Json = False) -> None:
    """The Pareto front of accuracy against trainable parameters."""
    from allocsearch import terminal, views  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415
    from allocsearch.backends.commands import command  # noqa: PLC0415
    from allocsearch.search import results  # noqa: PLC0415

    record = Catalog(storage).record(name)
    if as_json:
        print_json(views.front_json(record))
        return
    points = results.pareto(record.trials, record.spec.metric)
    if not points:
        raise InfeasibleError(
            f"study {name!r} must have a finished trial to show a front, but it has none yet: "
            f"see {command('status', name, storage=storage)}"
        )
    drawn = terminal.out.is_terminal  # what a program reads keeps to one line a trial
    terminal.out.print(terminal.front_table(points, title=f"{name}: Pareto front on the search split", bars=drawn))
    terminal.out.print(
        "The interval covers the sampling of rows; it covers neither the seed's noise nor the selection of the best.", style="dim"
    )


@app.command(epilog="Example: allocsearch export quickstart --pick smallest -o best.yaml")
def export(
    name: Name,
    *,
    trial: Annotated[int | None, typer.Option(min=0, help="The trial to export.")] = None,
    pick: Annotated[Literal["best", "knee", "smallest"], typer.Option(help="Which trial, if none is named.")] = "best",
    form: Annotated[
        Literal["yaml", "peft", "mola", "guilomo", "moa", "lora"],
        typer.Option("--format", help="`peft` needs the trial's kept weights; the others are those of other projects' trainers."),
    ] = "yaml",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File or folder. Without one, text goes to stdout.")] = None,
    storage: Storage = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Write a trial as a config. Works while the study runs."""
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415 - imports Optuna

    catalog = Catalog(storage)
    catalog.require(name)  # what is not there is said before anything is loaded
    with loading():
        from allocsearch.exporting import export as write  # noqa: PLC0415
    done = write(catalog, name, trial=trial, pick=pick, form=form, output=output, artifacts=artifacts)
    say(f"trial {done.trial}: {done.why}" + (f" → {done.path}" if done.path else ""))
    for line in done.notes:
        say(f"note: {line}")
    if as_json:
        print_json(done.to_json())
    elif done.path is None:
        sys.stdout.write(done.text)
