"""What the commands that train trials have in common: their options, and `--submit`, which sends such a command to a cluster."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, Final, NoReturn

import typer

from allocsearch.cli.app import Address, Artifacts, Inline, Json, MetricsHost, MetricsPort, Storage, Workers, say
from allocsearch.core.errors import InputError, quoted
from allocsearch.metrics import LOOPBACK

STUDY_FILE: Final = "study.yaml"
"""What a study's spec is called in a job's working folder."""

Gpus = Annotated[float | None, typer.Option("--gpus", min=0, help="GPUs of each trial; 0.5 lets two share one. Default: 1 if any.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of each trial. Another number rounds sums differently.")]
MemoryGb = Annotated[float | None, typer.Option("--memory-gb", min=0.001, help="The most main memory that each trial may take.")]
Submit = Annotated[
    str | None,
    typer.Option("--submit", help="Run this as a job of the Ray cluster whose job server is at this URL, with that cluster's storage."),
]


@dataclass(frozen=True)
class Launch:
    """The options that say where trials run and who is told."""

    workers: Workers = None
    gpus: Gpus = None
    threads: Threads = None
    memory_gb: MemoryGb = None
    storage: Storage = None
    address: Address = None
    submit: Submit = None
    inline: Inline = False
    as_json: Json = False

    @property
    def options(self) -> Any:
        """As the driver takes them."""
        from allocsearch.options import Options  # noqa: PLC0415 - imports Optuna

        return Options(self.storage, self.workers, self.address, getattr(self, "artifacts", None), self.inline, self._resources())

    def _resources(self) -> Any:
        from allocsearch import documents  # noqa: PLC0415 - imports pydantic, as the next does
        from allocsearch.resources_spec import ResourcesSpec  # noqa: PLC0415

        given = {"gpus": self.gpus, "threads": self.threads, "memory_gb": self.memory_gb}
        return documents.validated(ResourcesSpec, given, where="resources", given=given.keys())

    def command(self, *words: object) -> str:
        """`allocsearch WORDS` in the same place, to be typed next."""
        from allocsearch.backends.commands import flags  # noqa: PLC0415 - imports SQLAlchemy

        return str(self.options.command(*words, *flags({"json": self.as_json})))


@dataclass(frozen=True)
class LongLaunch(Launch):
    """Also for what keeps weights and takes long enough to be watched."""

    artifacts: Artifacts = None
    metrics_port: MetricsPort = None
    metrics_host: MetricsHost = LOOPBACK

    def command(self, *words: object) -> str:
        """Watched as this one."""
        from allocsearch.backends.commands import flags  # noqa: PLC0415 - imports SQLAlchemy

        host = None if self.metrics_port is None or self.metrics_host == LOOPBACK else self.metrics_host
        return super().command(*words, *flags({"metrics_port": self.metrics_port, "metrics_host": host}))


def launches(command: Callable[..., None]) -> Callable[..., None]:
    """Gives `command` the options of its first parameter's class, which it gets as one value: their list stands in one place."""
    launch, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = inspect.signature(launch.annotation, eval_str=True).parameters.values()

    @wraps(command)
    def launched(**given: Any) -> None:
        asked = launch.annotation(**{each.name: given.pop(each.name) for each in shared})
        if asked.submit is not None and not given.get("dry_run"):
            _check(asked)  # what cannot be sent is told before anything is read or loaded for it
        command(asked, **given)

    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in shared]
    launched.__signature__ = inspect.Signature([*own, *keywords])  # type: ignore[attr-defined]
    return launched


def submit(launch: Launch, name: str, arguments: list[str], *, spec: Any = None) -> NoReturn:
    """Send the command to the cluster, show its log on stderr until it ends, and end with its exit code.

    Args:
        launch: what to do with it.
        name: the study's.
        arguments: the command with its own options, to which the shared ones are added here.
        spec: a study that travels along, as `STUDY_FILE`.

    Raises:
        InputError: where no job server answers, or the place of weights holds a password.
        typer.Exit: always, at the end.
    """
    from allocsearch.backends.ray_jobs import Job, JobServer  # noqa: PLC0415 - seconds to import

    assert launch.submit is not None
    job = Job(name, [*arguments, *_shared(launch)], _files(spec), _variables(spec))
    server = JobServer(launch.submit)
    for line in _notes(launch, spec):
        say(line)
    job_id = server.submit(job)
    say(f"job {job_id} is in the hands of {server.url}")
    try:
        code = server.follow(job_id, lambda text: typer.echo(text, err=True, nl=False))
    except KeyboardInterrupt:
        say(f"no longer following; the job goes on. Follow it: ray job logs --address {server.url} --follow {job_id}")
        say(f"Stop it, everything kept: ray job stop --address {server.url} {job_id}")
        raise
    raise typer.Exit(code)


def _shared(launch: Launch) -> list[str]:
    """The shared options as the head gets them. It joins its own cluster."""
    from allocsearch.backends.artifact_store import folder_of  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.commands import flags  # noqa: PLC0415 - imports SQLAlchemy

    left_out = {"address", "submit", "inline", "as_json"}
    given = {field.name: getattr(launch, field.name) for field in fields(launch) if field.name not in left_out}
    if given.get("artifacts") is not None:
        given["artifacts"] = folder_of(given["artifacts"]) or given["artifacts"]
    if given.get("metrics_port") is None:
        given.pop("metrics_host", None)
    return [*flags(given), "--address", "auto"]


def _check(launch: Launch) -> None:
    """Refuses what could not run on a cluster, or would carry a password there."""
    for option, value, why in (
        ("--address", launch.address, "it joins the cluster by itself"),
        ("--inline", launch.inline, "it trains on the cluster's workers"),
        ("--json", launch.as_json, "its log is one stream: ask for the result afterwards, as with allocsearch front NAME --json"),
    ):
        if value:
            raise InputError(f"a driver sent by --submit must come without {option}: {why}")
    if launch.storage is None:
        return
    from allocsearch.backends.urls import holds_secret, parsed_url  # noqa: PLC0415 - imports SQLAlchemy

    if holds_secret(parsed_url(launch.storage)):
        raise InputError(
            "a job's command must hold no password, as Ray's dashboard shows it: leave --storage out, and set "
            "ALLOCSEARCH_STORAGE_FILE or ALLOCSEARCH_STORAGE where the cluster's head is started"
        )


def _files(spec: Any) -> dict[str, str]:
    if spec is None:
        return {}
    import yaml  # noqa: PLC0415 - with the rest of what reads studies

    return {STUDY_FILE: yaml.safe_dump(spec.to_json(), sort_keys=False, allow_unicode=True)}


def _variables(spec: Any) -> dict[str, str]:
    """There the study may point to what it was allowed to point to here, and to nothing else."""
    if spec is None:
        return {}
    from allocsearch.documents import FOLDERS  # noqa: PLC0415 - with the rest of what reads studies
    from allocsearch.options import paths_of  # noqa: PLC0415 - imports Optuna

    paths = paths_of(spec)
    for path in paths:
        if os.pathsep in path:
            raise InputError(f"a path that --submit sends must hold no {os.pathsep!r}, which stands between paths, but got {quoted(path)}")
    return {FOLDERS: os.pathsep.join(paths)}


def _notes(launch: Launch, spec: Any) -> list[str]:
    """What the user may not expect of a command that runs elsewhere."""
    from allocsearch.backends.artifact_store import folder_of  # noqa: PLC0415 - imports Optuna
    from allocsearch.backends.storage import storage_in_environment  # noqa: PLC0415 - imports Optuna
    from allocsearch.exposure import open_job_server  # noqa: PLC0415
    from allocsearch.options import paths_of  # noqa: PLC0415 - imports Optuna

    notes = []
    place = launch.options.artifacts
    folder = None if place is None else folder_of(place)
    paths = [*(() if spec is None else paths_of(spec)), *([] if folder is None else [str(folder)])]
    if paths:
        notes.append(f"note: these must be on the cluster's nodes, as nothing but the study travels: {', '.join(paths)}")
    if storage_in_environment():
        notes.append("note: the job uses the storage of the cluster's head, not this shell's")
    found = open_job_server(launch.submit or "")
    return [*notes, f"warning: {found.found}: {found.remedy}"] if found else notes
