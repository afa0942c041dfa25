"""The typer application, the options that commands share, and how they print."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from allocsearch import logs
from allocsearch.cli.completing import stored_names

app = typer.Typer(
    name="allocsearch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find how many LoRA experts of which rank each layer of a language model should get, within a parameter budget.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and everything else on stderr.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Database URL. Default: that of ALLOCSEARCH_STORAGE or in the file ALLOCSEARCH_STORAGE_FILE, else SQLite in ALLOCSEARCH_HOME.",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(help="The study's name.", autocompletion=stored_names)]
Workers = Annotated[int | None, typer.Option("--workers", min=1, max=4096, help="Trials at a time. Default: one per GPU, or per CPU.")]
Address = Annotated[str | None, typer.Option("--address", help="Join a Ray cluster from one of its nodes: `auto` or host:port.")]
Artifacts = Annotated[  # no path: that would make `s3:/` of `s3://`
    str | None,
    typer.Option("--artifacts", metavar="PLACE", help="Where trained weights go: a folder that all workers share, or s3://BUCKET/PREFIX."),
]
Inline = Annotated[bool, typer.Option("--inline", help="Run trials one by one in this process, without Ray; for debugging.")]
MetricsPort = Annotated[
    int | None,
    typer.Option("--metrics-port", min=1, max=65_535, help="Serve Prometheus metrics of this run at this port.", show_default=False),
]
MetricsHost = Annotated[str, typer.Option("--metrics-host", help="Address to serve them at. There is no login.")]


def print_json(document: Any) -> None:
    """One document on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")


def say(line: str) -> None:
    """A line on stderr, where progress goes."""
    logs.note(line)


@contextmanager
def loading() -> Iterator[None]:
    """Says that PyTorch is being imported, which takes seconds, where it has not been yet."""
    line = "loading PyTorch and transformers"
    if "torch" in sys.modules:
        yield
    elif logs.as_json() or not sys.stderr.isatty():
        say(line)
        yield
    else:
        from rich.console import Console  # noqa: PLC0415 - not needed for a line

        with Console(stderr=True).status(line):
            yield
