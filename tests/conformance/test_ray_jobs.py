"""A driver as a Ray job, against a job server of the test's own; tests/e2e/test_submit.py has Ray's."""

from types import SimpleNamespace

import pytest

from allocsearch.backends import ray_jobs
from allocsearch.backends.ray_jobs import Job, JobServer
from allocsearch.core.errors import InputError

LOG = "joining the cluster\ntrial 0\ntrial 1\nwinner: trial 1\n"


class Client:
    """Sends the log from its beginning at each connection; `breaks` says after how many characters a connection is lost."""

    def __init__(self, breaks=(), code=0, status=None):
        self.breaks, self.code, self.status = list(breaks), code, status
        self.submitted = None

    def submit_job(self, *, entrypoint, submission_id, runtime_env):
        from pathlib import Path

        folder = runtime_env.get("working_dir")
        files = {} if folder is None else {path.name: path.read_text() for path in Path(folder).iterdir()}
        self.submitted = SimpleNamespace(entrypoint=entrypoint, variables=runtime_env["env_vars"], files=files)
        return submission_id

    async def tail_job_logs(self, job_id):
        most = self.breaks.pop(0) if self.breaks else len(LOG)
        for begin in range(0, most, 7):
            yield LOG[begin : min(begin + 7, most)]
        if most < len(LOG):
            raise ConnectionResetError

    def get_job_logs(self, job_id):
        return LOG

    def get_job_info(self, job_id):
        from ray.job_submission import JobStatus

        status = self.status or (JobStatus.FAILED if self.code else JobStatus.SUCCEEDED)
        return SimpleNamespace(status=JobStatus(status), driver_exit_code=self.code)


@pytest.fixture
def server_of(monkeypatch):
    """A `JobServer` over a client of the test's."""
    monkeypatch.setattr(ray_jobs, "find_spec", lambda _: True)
    monkeypatch.setattr(ray_jobs, "_PAUSE_SECONDS", 0.0)

    def made(client):
        monkeypatch.setattr(ray_jobs, "JobSubmissionClient", lambda url: client)
        return JobServer("http://127.0.0.1:8265/")

    return made


@pytest.mark.parametrize("breaks", [(), (0,), (5, 30), (len(LOG) - 1,)])
def test_a_log_is_shown_once_however_often_the_connection_breaks(server_of, breaks):
    written = []
    assert server_of(Client(breaks)).follow("job", written.append) == 0
    assert "".join(written) == LOG


@pytest.mark.parametrize(
    ("code", "status", "found"),
    [(0, None, 0), (2, None, 2), (4, None, 4), (130, None, 130), (-9, "FAILED", 1), (None, "FAILED", 1), (None, "STOPPED", 130)],
)
def test_the_jobs_exit_code_is_ours(server_of, code, status, found):
    assert server_of(Client(code=code, status=status)).follow("job", lambda _: None) == found


def test_a_server_that_stays_away_is_named_with_the_job(server_of, monkeypatch):
    monkeypatch.setattr(ray_jobs, "_MOST_FAILURES", 3)
    with pytest.raises(InputError, match=r"the job server at http://127\.0\.0\.1:8265 must answer, but: .*; job mine may go on"):
        server_of(Client(breaks=(3,) * 9)).follow("mine", lambda _: None)


def test_a_job_is_a_command_and_its_files(server_of):
    client = Client()
    job = Job(
        "reviews", ["run", "study.yaml", "--artifacts", "/a folder"], {"study.yaml": "name: reviews"}, {"ALLOCSEARCH_FOLDERS": "/rows"}
    )
    assert server_of(client).submit(job).startswith("allocsearch-reviews-")
    assert client.submitted.entrypoint == "python -m allocsearch run study.yaml --artifacts '/a folder'"
    assert client.submitted.variables == {"ALLOCSEARCH_FOLDERS": "/rows"}
    assert client.submitted.files == {"study.yaml": "name: reviews"}


def test_the_address_that_the_user_gave_wins(server_of, monkeypatch):
    import os

    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setattr(ray_jobs, "find_spec", lambda _: True)
    seen = []
    monkeypatch.setattr(ray_jobs, "JobSubmissionClient", lambda url: seen.append((url, "RAY_ADDRESS" in os.environ)))
    JobServer("http://127.0.0.1:8265")
    assert seen == [("http://127.0.0.1:8265", False)]
    assert os.environ["RAY_ADDRESS"] == "elsewhere:6379"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ray://head:10001", "`ray://` would carry its database credentials"),
        ("127.0.0.1:8265", "must be given as a URL such as http://127.0.0.1:8265"),
        ("auto", "must be given as a URL"),
        ("http://me:hunter2@head:8265", "must hold no password"),
    ],
)
def test_what_is_no_job_server_is_refused(url, says):
    with pytest.raises(InputError, match=says) as caught:
        JobServer(url)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray_jobs, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'allocsearch\[cluster\]'"):
        JobServer("http://127.0.0.1:8265")
