"""`report`: a study on one page."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from allocsearch.cli.app import Name, Storage, app, say
from allocsearch.core.errors import InfeasibleError


@app.command(epilog="Example: allocsearch report quickstart -o quickstart.html")
def report(
    name: Name,
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File. Default: NAME.html or NAME.md here.")] = None,
    form: Annotated[Literal["html", "md"], typer.Option("--format", help="A page with figures, or Markdown with their tables.")] = "html",
    pick: Annotated[Literal["best", "knee", "smallest"], typer.Option(help="Which trial is the winner.")] = "best",
    storage: Storage = None,
) -> None:
    """Write a study as one file that needs no network: figures, comparison, spec, environment. Works while the study runs."""
    from allocsearch import page  # noqa: PLC0415 - imports Plotly
    from allocsearch.backends.catalog import Catalog  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.commands import command  # noqa: PLC0415
    from allocsearch.formats.writing import write_text  # noqa: PLC0415
    from allocsearch.search import results  # noqa: PLC0415
    from allocsearch.telling import tell  # noqa: PLC0415

    catalog = Catalog(storage)
    record = catalog.record(name)
    if not results.points(record.trials):
        see = command("status", name, storage=storage)
        raise InfeasibleError(f"study {name!r} must have a finished trial to report, but it has none yet: see {see}")
    told = tell(catalog, record, pick=pick)
    path = output or Path(f"{name}.{form}".replace("/", "-"))
    write_text(page.html(told) if form == "html" else page.markdown(told), path)
    say(f"report of {name}: {path}")
