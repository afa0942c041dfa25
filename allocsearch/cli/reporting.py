"""`report`: a study on one page."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from allocsearch.cli.app import Name, Storage, app, say
from allocsearch.core.errors import InfeasibleError, InputError


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
    from allocsearch.search import results  # noqa: PLC0415
    from allocsearch.telling import tell  # noqa: PLC0415 - imports torch

    catalog = Catalog(storage)
    record = catalog.record(name)
    if not results.points(record.trials):
        raise InfeasibleError(f"study {name!r} must have a finished trial to report, but it has none yet: see allocsearch status {name}")
    told = tell(catalog, record, pick=pick)
    path = output or Path(f"{name}.{form}".replace("/", "-"))
    _write(path, page.html(told) if form == "html" else page.markdown(told))
    say(f"report of {name}: {path}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"the report must be writable at {path}, but: {error.strerror}: give another -o") from error
