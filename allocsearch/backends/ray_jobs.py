"""A driver that is sent to a cluster as a Ray job, through the job server of the cluster's head.

The cluster's dashboard shows a job's command, its runtime environment and its metadata to whoever may look: none of them holds a secret.
"""

import asyncio
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from allocsearch.backends.ray_session import refuse_ray_client, without_variables  # before Ray: it sets what Ray reads when it is imported

# isort: split
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from allocsearch.core.errors import InputError, gist, quoted

_PYTHON: Final = ("python", "-m", "allocsearch")
_OVERRIDES: Final = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # which Ray would prefer to the address that the user gave
_PAUSE_SECONDS: Final = 2.0
_MOST_FAILURES: Final = 30
_STOPPED_CODE: Final = 130


@dataclass(frozen=True, slots=True)
class Job:
    """A command of allocsearch for the cluster's head.

    Attributes:
        name: the study's.
        arguments: those of allocsearch; no secret among them.
        files: text by name, in the folder in which it runs.
        variables: of its environment.
    """

    name: str
    arguments: Sequence[str]
    files: Mapping[str, str]
    variables: Mapping[str, str]

    @property
    def entrypoint(self) -> str:
        """As the head's shell gets it."""
        return shlex.join([*_PYTHON, *self.arguments])


class JobServer:
    """The job server at `url`.

    Raises:
        InputError: for a URL that is none, and where no job server answers there or it wants another token.
    """

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        with self._explained(), without_variables(*_OVERRIDES):
            self._client = JobSubmissionClient(self.url)

    def submit(self, job: Job) -> str:
        """Start it, and return its id."""
        wanted = f"allocsearch-{job.name}-{uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory(prefix="allocsearch-") as folder, self._explained():
            for name, text in job.files.items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            environment = {"env_vars": dict(job.variables), **({"working_dir": folder} if job.files else {})}
            return str(self._client.submit_job(entrypoint=job.entrypoint, submission_id=wanted, runtime_env=environment))

    def follow(self, job_id: str, write: Callable[[str], None]) -> int:
        """Hand over the job's log as it is written, until the job has ended; returns its exit code, 130 where it was stopped.

        A connection that is lost is taken up again where it broke off.

        Raises:
            InputError: where the server has not answered for a minute. The job may go on.
        """
        log, failures = _Log(write), 0
        while True:
            try:
                asyncio.run(log.tail(self._client, job_id))
                details = self._client.get_job_info(job_id)
            except Exception as error:  # the reason: the library under the connection is an extra, with errors of its own
                failures += 1
                if failures == _MOST_FAILURES:
                    raise InputError(f"the job server at {self.url} must answer, but: {gist(error)}; job {job_id} may go on") from error
            else:
                failures = 0
                if details.status.is_terminal():
                    log.finish(self._client.get_job_logs(job_id))
                    return _exit_code(details)
            time.sleep(_PAUSE_SECONDS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise InputError(
                f"the job server at {self.url} must know this shell's token, but refuses it: "
                "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            ) from error
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"a job server must answer at {self.url}, but: {gist(error)}; the head needs Ray's dashboard (ray[default]) for it"
            ) from error


class _Log:
    """What has been shown of a job's log, which every connection sends from its beginning."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._shown = write, 0

    async def tail(self, client: JobSubmissionClient, job_id: str) -> None:
        seen = 0
        async for text in client.tail_job_logs(job_id):
            self._show(text, at=seen)
            seen += len(text)

    def finish(self, whole: str) -> None:
        self._show(whole, at=0)

    def _show(self, text: str, *, at: int) -> None:
        new = text[max(0, self._shown - at) :]
        if new:
            self._write(new)
            self._shown = at + len(text)


def _exit_code(details: Any) -> int:
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.status == JobStatus.STOPPED:
        return _STOPPED_CODE
    return details.driver_exit_code if (details.driver_exit_code or 0) > 0 else 1


def _checked(url: str) -> str:
    refuse_ray_client(url)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(f"a job server must be given as a URL such as http://127.0.0.1:8265, but got {quoted(url)}")
    if parts.password or parts.username:
        raise InputError("a job server's URL must hold no password, as `ps` shows it: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH")
    if find_spec("aiohttp") is None:
        raise InputError("`--submit` needs the client of Ray's job server, which is not installed: pip install 'allocsearch[cluster]'")
    return url.rstrip("/")
