"""`train` and `evaluate`: from an exported config to an adapter, and to what it is worth."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from allocsearch.cli.app import Json, app, loading, print_json, say
from allocsearch.cli.interrupts import resumable
from allocsearch.core.errors import InputError

Task = Annotated[
    str | None,
    typer.Option("--task", help="A task's or a study's YAML, or a built-in task. Default: the config's own task, where that is built in."),
]
Dtype = Annotated[Literal["bfloat16", "float16", "float32"] | None, typer.Option(help="Of the frozen base. Default: as in the search.")]


@app.command(epilog="Example: allocsearch train best.yaml --epochs 3 -o adapter --evaluate")
def train(
    config: Annotated[Path, typer.Argument(help="An exported YAML file, or an exported or trained folder. Weights start anew.")],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder. Default: named by study and trial.", show_default=False)
    ] = None,
    task: Task = None,
    epochs: Annotated[float, typer.Option(min=0.001, help="Passes over the task's training rows.")] = 3.0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows of an optimiser step, all devices together. Default: the search's.")
    ] = None,
    gradient_accumulation: Annotated[int, typer.Option(min=1, help="Passes that a batch is split into, to save memory.")] = 1,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, max=1.0, help="Default: the search's.")] = None,
    max_tokens: Annotated[int, typer.Option(min=8, help="Longest row in tokens.")] = 256,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Save memory: compute activations twice.")
    ] = False,
    dtype: Dtype = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights and the order of the rows.")] = 0,
    checkpoint_steps: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints. Default: a tenth of them.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the output folder's checkpoint.")] = False,
    report_to: Annotated[Literal["tensorboard", "wandb"] | None, typer.Option(help="Also log there, if it is installed.")] = None,
    evaluate_after: Annotated[bool, typer.Option("--evaluate", help="Score the task's test rows at the end, for the model card.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(metavar="REPO", help="Upload the result to this repository; private if new.")] = None,
    as_json: Json = False,
) -> None:
    """Train an exported allocation on the whole of its task: a PEFT adapter with a model card. For several GPUs: accelerate launch."""
    from allocsearch.tuning import sources  # noqa: PLC0415

    exported = sources.exported_config(config)
    chosen = sources.task_of(task, exported)
    folder = output or Path(f"{exported.study.name}-trial-{exported.study.trial}-trained")
    if push_to_hub is not None:
        from allocsearch.tuning.publishing import check_publishable, publish  # noqa: PLC0415

        check_publishable(exported, push_to_hub)
    with loading():
        from allocsearch.tuning.finetuning import Request, train as train_it  # noqa: PLC0415, I001
    from allocsearch.tuning.settings import Settings  # noqa: PLC0415

    settings = Settings(
        epochs=epochs,
        batch_size=batch_size or exported.fidelity.batch_size,
        gradient_accumulation=gradient_accumulation,
        learning_rate=learning_rate or exported.fidelity.learning_rate,
        max_tokens=max_tokens,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype or exported.fidelity.dtype,
        seed=seed,
    )
    with resumable(lambda: _resume_command(folder, named=output is not None), kept="continue from the last checkpoint"):
        done = train_it(Request(exported, chosen, settings, folder, resume, checkpoint_steps, report_to, evaluate_after), say)
    if not done.is_main:
        return
    say(f"{folder}: the adapter and its model card, README.md")
    where = None if push_to_hub is None else publish(folder, push_to_hub)
    if where is not None:
        say(f"published as {where}")
    if as_json:
        print_json({**done.to_json(), "published": where})
    elif done.test is not None:
        typer.echo(_line(done.test.to_json()))
    else:
        typer.echo(f"next: allocsearch evaluate {shlex.quote(str(folder))}" + (f" --task {shlex.quote(task)}" if task else ""))


@app.command(epilog="Example: allocsearch evaluate adapter --rows 1000")
def evaluate(
    adapter: Annotated[Path, typer.Argument(help="A folder with a PEFT adapter, trained or exported.")],
    *,
    task: Task = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Only so many test rows (with --harness: of each of its tasks).")] = None,
    model: Annotated[str | None, typer.Option(help="The base model's folder or id, where it is not what the adapter says.")] = None,
    dtype: Dtype = None,
    max_tokens: Annotated[int | None, typer.Option(min=8, help="Longest row in tokens. Default: as in the training.")] = None,
    harness: Annotated[str | None, typer.Option(metavar="TASKS", help="Tasks of lm-eval, by name or YAML, with commas.")] = None,
    as_json: Json = False,
) -> None:
    """Accuracy on the task's test split, with the interval that the number of rows gives, and NLL."""
    from allocsearch.tuning import sources  # noqa: PLC0415

    if not adapter.is_dir():
        what = "is a file: train it with allocsearch train" if adapter.is_file() else "is not there: see allocsearch train --help"
        raise InputError(f"an adapter must be a folder with an adapter_config.json, but {str(adapter)!r} {what}")
    exported = sources.exported_config(adapter) if (adapter / sources.EVIDENCE_FILE).is_file() else None
    chosen = None if harness is not None else sources.task_of(task, exported)
    with loading():
        from allocsearch.training.tasks import load_task  # noqa: PLC0415
        from allocsearch.tuning import evaluation  # noqa: PLC0415
        from allocsearch.tuning.folder import recorded  # noqa: PLC0415

    settings = recorded(adapter)
    kind = dtype or settings.get("dtype") or ("bfloat16" if exported is None else exported.fidelity.dtype)
    if chosen is None:
        _harness(adapter, harness or "", rows=rows, dtype=kind, base=model, as_json=as_json)
        return
    longest = max_tokens or settings.get("max_tokens") or 256
    read = load_task(chosen.source())
    found = evaluation.evaluate(adapter, read, rows=rows, dtype=kind, max_tokens=longest, base=model, say=say).to_json()
    if as_json:
        print_json({"adapter": str(adapter), **found})
    else:
        typer.echo(_line(found))


def _harness(adapter: Path, names: str, *, rows: int | None, dtype: str, base: str | None, as_json: bool) -> None:
    from allocsearch.tuning.harness import harness as run_harness  # noqa: PLC0415

    tasks = [name.strip() for name in names.split(",") if name.strip()]
    if not tasks:
        raise InputError("--harness must name at least one task of lm-eval, such as arc_easy, but it is empty")
    found = run_harness(adapter, tasks, rows=rows, dtype=dtype, base=base)
    if as_json:
        print_json({"adapter": str(adapter), "harness": found})
        return
    for name, metrics in found.items():
        typer.echo(f"{name}: " + ", ".join(f"{key} {value}" for key, value in metrics.items() if key != "alias"))


def _line(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return (
        f"accuracy {found['accuracy']:.4f} [{low:.4f}, {high:.4f}], NLL {found['nll']:.4f} "
        f"on {found['rows']:,} test rows of {found['task']} ({found['interval_kind']})"
    )


def _resume_command(folder: Path, *, named: bool) -> str:
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["allocsearch", *words, "--resume", *([] if named else ["-o", str(folder)])])
