"""`status`, `front` and `export`: what a study has found. They work while it runs."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from allocsearch.cli.app import Artifacts, Json, Name, Storage, app, print_json, say
from allocsearch.core.errors import InfeasibleError, InputError


@app.command(epilog="Example: allocsearch status quickstart")
def status(
    name: Annotated[str | None, typer.Argument(help="The study's name; without one, all studies.")] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Counts per state, best so far, time and compute spent."""
    from allocsearch import terminal, views  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415

    catalog = Catalog(storage)
    if name is None:
        names = catalog.names()
        if as_json:
            print_json({"studies": names})
        elif names:
            terminal.out.print("\n".join(names), markup=False)
        else:
            say("no study yet; start one with: allocsearch run --budget 8M-params")
        return
    found = views.status_json(catalog.record(name))
    if as_json:
        print_json(found)
        return
    counts = found["counts"]
    rows = [[state, counts[state]] for state in counts]
    terminal.out.print(terminal.rows_table(f"{name}: {found['task']} on {found['model']}, {found['budget']}", ["trials", "number"], rows))
    spent, wall = terminal.duration(found["worker_seconds"]), terminal.duration(found["wall_seconds"])
    pace = f", {found['trials_per_hour']:.0f} an hour" if found["trials_per_hour"] else ""
    left = f", about {terminal.duration(found['seconds_left'])} left at that pace" if found["seconds_left"] else ""
    done = counts["finished"] + counts["stopped"]
    terminal.out.print(f"{done} of {found['target_trials']} done in {wall} ({spent} of worker time){pace}{left}", markup=False)
    if found["best"] is not None:
        best = found["best"]
        terminal.out.print(
            f"best so far: trial {best['trial']}, accuracy {best['accuracy']:.3f} on the search split: {best['allocation']}", markup=False
        )
    for failure in found["failures"][-3:]:
        terminal.out.print(f"trial {failure['trial']} failed: {failure['reason']}", markup=False)
    if not found["complete"]:
        say(f"if no driver is running it, continue with: allocsearch resume {name}")


@app.command(epilog="Example: allocsearch front quickstart --json")
def front(name: Name, storage: Storage = None, as_json: Json = False) -> None:
    """The Pareto front of accuracy against trainable parameters."""
    from allocsearch import terminal, views  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415
    from allocsearch.search import results  # noqa: PLC0415

    record = Catalog(storage).record(name)
    if as_json:
        print_json(views.front_json(record))
        return
    points = results.pareto(record.trials)
    if not points:
        raise InfeasibleError(
            f"study {name!r} must have a finished trial to show a front, but it has none yet: see allocsearch status {name}"
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
    from allocsearch import export as exports, views  # noqa: PLC0415, I001 - imports Optuna
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415
    from allocsearch.driver import stored_base  # noqa: PLC0415
    from allocsearch.workplace import Options, artifacts_folder  # noqa: PLC0415
    from allocsearch.backends.artifacts import FolderArtifacts  # noqa: PLC0415
    from allocsearch.evidence import evidence  # noqa: PLC0415
    from allocsearch.models import model_shape  # noqa: PLC0415 - imports torch

    catalog = Catalog(storage)
    record = catalog.record(name)
    chosen, why = exports.choose(record, trial=trial, pick=pick)
    shape = model_shape(record.spec.model, record.spec.revision)
    table = views.cost_json(chosen.trial.assignment.allocation, shape, chosen.trial.assignment.routing)
    found = evidence(catalog, record, trial=chosen.trial.number)
    exported = exports.config(record, chosen, why, layers=table["per_layer"], architecture=shape.architecture, found=found)
    text, notes = exports.to_yaml(exported), tuple[str, ...]()
    if form not in {"yaml", "peft"}:
        store = FolderArtifacts(artifacts_folder(name, Options(artifacts=artifacts)))
        where, text, notes = _write_foreign(form, record, chosen, shape=shape, base_model=stored_base(record), store=store, output=output)
    elif form == "peft":
        folder = output or Path(f"{name}-trial-{chosen.trial.number}")
        store = FolderArtifacts(artifacts_folder(name, Options(artifacts=artifacts)))
        exports.write_peft(exported, base_model=stored_base(record), weights=chosen.measured.artifact, artifacts=store, folder=folder)
        where = str(folder)
    elif output is not None:
        exports.write_yaml(exported, output)
        where = str(output)
    else:
        where = ""
    say(f"trial {chosen.trial.number}: {why}" + (f" → {where}" if where else ""))
    for note in notes:
        say(f"note: {note}")
    if as_json:
        print_json(
            {
                "study": name,
                "trial": chosen.trial.number,
                "why": why,
                "path": where or None,
                "notes": list(notes),
                "config": exported.model_dump(mode="json", by_alias=True),
            }
        )
    elif not where:
        sys.stdout.write(text)


def _write_foreign(
    form: str, record: Any, point: Any, *, shape: Any, base_model: str, store: Any, output: Path | None
) -> tuple[str, str, tuple[str, ...]]:
    """Export in a format of another project: where it was written (nowhere: a single text for stdout), its text, and notes."""
    from allocsearch.formats.recipe import Recipe  # noqa: PLC0415 - imports torch
    from allocsearch.formats.table import FORMATS  # noqa: PLC0415
    from allocsearch.formats.writing import write  # noqa: PLC0415
    from allocsearch.models import head_of  # noqa: PLC0415

    if head_of(record.spec.model, record.spec.revision).modules:
        raise InputError(f"the {form} format is for causal language models, but {record.spec.model!r} has a head: use --format peft")
    trial, kept = point.trial, point.measured.artifact
    with tempfile.TemporaryDirectory(prefix="allocsearch-") as scratch:
        # Those of a trial that has left the front are gone; its config still trains.
        weights = Path(scratch) / "adapter_model.safetensors" if form == "lora" and kept in record.artifacts else None
        if weights is not None:
            store.read(kept, weights)
        assignment = trial.assignment
        document = FORMATS[form](
            Recipe(assignment.allocation, shape, assignment.routing, record.spec.proxy.alpha, base_model, weights=weights)
        )
    if output is None and document.text is not None:
        return "", document.text, document.notes
    where = output or Path(f"{record.name}-trial-{trial.number}-{form}")
    write(document, where)
    return str(where), "", document.notes
