"""`doctor`, `db` and `dashboard`: what stands around a run."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import typer

from allocsearch.cli.app import Address, Json, Storage, app, print_json, say
from allocsearch.core.findings import Finding, failed

db_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check or upgrade the tables in the storage.", epilog="Example: allocsearch db check"
)
app.add_typer(db_app, name="db")

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@app.command(epilog="Example: allocsearch doctor --address auto")
def doctor(storage: Storage = None, address: Address = None, as_json: Json = False) -> None:
    """Check this machine, the storage, and with --address the cluster. Exit code 1 where something must be mended before a run."""
    if as_json:  # it takes seconds, and is told as one
        say("checking this machine" + ("" if address is None else " and the cluster"))
    _show(_findings(storage, address), as_json=as_json)


@app.command(epilog="Example: allocsearch dashboard --port 8080")
def dashboard(
    storage: Storage = None,
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen at. There is no login: put a proxy that authenticates before another one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen at; 0 takes a free one.")] = 8080,
    writable: Annotated[bool, typer.Option("--writable", help="Allow changes and deletions, from the dashboard's own pages.")] = False,
) -> None:
    """Show the storage's studies in Optuna's dashboard, with the graphs and notes that their drivers keep. For looking only."""
    from allocsearch.backends.dashboard import serve  # noqa: PLC0415 - imports Optuna

    serve(storage, host=host, port=port, say=say, writable=writable)


@db_app.command(epilog="Example: allocsearch db check")
def check(storage: Storage = None, as_json: Json = False) -> None:
    """Say whether the tables fit the installed Optuna and allocsearch. Exit code 1 where they do not."""
    from allocsearch.backends.schema import schemas_of  # noqa: PLC0415 - imports Optuna

    _show((schema.finding for schema in schemas_of(storage)), as_json=as_json)


@db_app.command(epilog="Example: allocsearch db upgrade")
def upgrade(storage: Storage = None, as_json: Json = False) -> None:
    """Make the tables, or bring them to the installed versions. Stop all drivers and back the database up before."""
    from allocsearch.backends import schema  # noqa: PLC0415 - imports Optuna

    before, after = schema.upgrade(storage)
    changes = {"missing": "{0.owner}'s tables made", "behind": "{0.owner}'s tables upgraded from {0.version}"}
    done = [changes[schema.state].format(schema) for schema in before if schema.state in changes]
    _show([Finding("upgrade", "ok", "; ".join(done) or "nothing to do"), *(schema.finding for schema in after)], as_json=as_json)


def _findings(storage: str | None, address: str | None) -> Iterator[Finding]:
    from allocsearch import exposure, health  # noqa: PLC0415
    from allocsearch.backends.database_health import database  # noqa: PLC0415 - imports Optuna

    yield from health.machine()
    yield from database(storage)
    hosts = exposure.own_addresses()
    if address is not None:
        from allocsearch.backends.ray_health import cluster  # noqa: PLC0415 - seconds to import

        findings, nodes = cluster(address)
        yield from findings
        hosts = sorted({*hosts, *nodes} - {"127.0.0.1"})
    yield from exposure.exposed(hosts)


def _show(findings: Iterable[Finding], *, as_json: bool) -> None:
    """Each as soon as it is known. Raises `typer.Exit` with code 1 where one failed."""
    seen = list[Finding]()
    for finding in findings:
        seen.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        rows = [{"check": f.check, "level": f.level, "found": f.found, "remedy": f.remedy or None} for f in seen]
        print_json({"ok": not failed(seen), "checks": rows})
    if failed(seen):
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    from rich.text import Text  # noqa: PLC0415

    from allocsearch import terminal  # noqa: PLC0415

    line = f"  {finding.check:<10}  {finding.found}" + (f" → {finding.remedy}" if finding.remedy else "")
    terminal.out.print(Text.assemble((f"{finding.level:<4}", _COLOURS[finding.level]), line))
