"""`cost`, `spaces`, `studies`, `models` and `validate`: what there is, and what it means."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from allocsearch.cli.app import Json, app, loading, print_json, say
from allocsearch.cli.completing import model_names
from allocsearch.core.errors import InputError

models_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, help="List the built-in models, or fetch one.")
app.add_typer(models_app, name="models")


@app.command(epilog='Example: allocsearch cost --model smollm2-135m --allocation "4x8*30"')
def cost(
    model: Annotated[str, typer.Option(help="A built-in name, a hub id, a folder or a config.json.", autocompletion=model_names)],
    allocation: Annotated[str, typer.Option(help='Layers bottom to top, such as "2x8*8 4x8*8 6x8*8 8x8*8".')],
    *,
    top_k: Annotated[str, typer.Option("--top-k", help="Experts per token: one number, or one per layer with commas.")] = "2",
    targets: Annotated[str, typer.Option(help="Groups or targets that may carry experts, with commas.")] = "attn,ffn",
    router: Annotated[Literal["topk", "dense", "sigmoid", "threshold"], typer.Option(help="Who weighs the experts.")] = "topk",
    swi_x: Annotated[int, typer.Option("--swi-x", help="Hidden width of a block router per expert.")] = 4,
    as_json: Json = False,
) -> None:
    """Trainable and active parameters of an allocation, from the model's config alone."""
    from allocsearch import terminal, views  # noqa: PLC0415
    from allocsearch.core.allocation import Allocation  # noqa: PLC0415
    from allocsearch.core.geometry import Routing  # noqa: PLC0415

    routing = Routing(router, _top_k(top_k), tuple(name.strip() for name in targets.split(",")), swi_x)
    parsed = Allocation.parse(allocation)
    with loading():
        from allocsearch.models import model_shape  # noqa: PLC0415
    found = views.cost_json(parsed, model_shape(model), routing)
    if as_json:
        print_json(found)
        return
    rows = [[row["layer"], row["plan"], row["trainable"], row["active"]] for row in found["per_layer"]]
    terminal.out.print(terminal.rows_table(f"{found['model']}", ["layer", "plan", "trainable", "active"], rows))
    terminal.out.print(
        f"trainable {found['trainable']:,} ({found['share_of_base']:.2%} of the base), active per token at most {found['active']:,}"
    )


@app.command(epilog="Example: allocsearch spaces")
def spaces(as_json: Json = False) -> None:
    """The search spaces that are there by name."""
    from allocsearch import spec as specs  # noqa: PLC0415
    from allocsearch.documents import named  # noqa: PLC0415

    found = [specs.load_space(name) for name in named("search_spaces")]
    _show_list([{"name": space.name, "about": space.about} for space in found], ["name", "about"], as_json=as_json, key="spaces")


@app.command(epilog="Example: allocsearch studies")
def studies(as_json: Json = False) -> None:
    """The studies that can be run by name."""
    from allocsearch import spec as specs  # noqa: PLC0415
    from allocsearch.documents import named  # noqa: PLC0415

    found = [specs.load(name) for name in named("studies")]
    keys = ["name", "model", "task", "space", "budget", "trials"]
    rows = [dict(zip(keys, (s.name, s.model, s.task.name, s.space.name, s.budget, s.trials), strict=True)) for s in found]
    _show_list(rows, keys, as_json=as_json, key="studies")


@models_app.callback(epilog="Example: allocsearch models pull smollm2-135m")
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the built-in models, or fetch one."""
    if context.invoked_subcommand is not None:
        return
    from allocsearch.builtin_models import BUILTIN_MODELS  # noqa: PLC0415
    from allocsearch.model_store import is_pulled  # noqa: PLC0415

    rows = [{"name": name, "about": model.about, "here": "yes" if is_pulled(name) else "no"} for name, model in BUILTIN_MODELS.items()]
    _show_list(rows, ["name", "about", "here"], as_json=as_json, key="models")


@models_app.command(epilog="Example: allocsearch models pull smollm2-135m")
def pull(name: Annotated[str, typer.Argument(help="A built-in model.", autocompletion=model_names)], as_json: Json = False) -> None:
    """Fetch a built-in model into ALLOCSEARCH_HOME, checked by its checksum."""
    from allocsearch.model_store import model_digest  # noqa: PLC0415
    from allocsearch.model_store import pull as pull_model  # noqa: PLC0415

    folder = pull_model(name, say)
    if as_json:
        print_json({"name": name, "path": str(folder), "sha256": model_digest(folder)})
    else:
        typer.echo(f"{name}: {folder}")


@app.command(epilog="Example: allocsearch validate my-study.yaml")
def validate(
    file: Annotated[str | None, typer.Argument(help="A study, a space, a task or an exported config.", show_default=False)] = None,
    *,
    schema: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Print a JSON schema instead: study, space, task, export or output-COMMAND; `list` names them.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a YAML file; an error says the line and the remedy."""
    if (file is None) == (schema is None):
        raise InputError("validate needs a FILE to check, or --schema with the name of a schema to print, and not both")
    if file is None:
        from allocsearch import json_schemas  # noqa: PLC0415

        sys.stdout.write("\n".join([*json_schemas.names(), ""]) if schema == "list" else json_schemas.text(schema or ""))
        return
    from allocsearch import validation  # noqa: PLC0415

    what = validation.validate(Path(file))
    if as_json:
        print_json({"file": file, "valid": True, "schema": what})
    else:
        typer.echo(f"{file}: valid {what}")


def _show_list(rows: list[dict[str, Any]], keys: list[str], *, as_json: bool, key: str) -> None:
    from allocsearch import terminal  # noqa: PLC0415

    if as_json:
        print_json({key: rows})
    else:
        terminal.out.print(terminal.rows_table("", keys, [[row[k] for k in keys] for row in rows]))


def _top_k(text: str) -> int | tuple[int, ...]:
    try:
        values = tuple(int(value) for value in text.split(","))
    except ValueError as error:
        raise InputError(f"`--top-k` must be a whole number, or one per layer with commas, but got {text!r}") from error
    return values if len(values) > 1 else values[0]
