"""Adapters' weights in a bucket of S3, or of a server that speaks S3's protocol, through Optuna's own store."""

import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from optuna.artifacts import Boto3ArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from allocsearch.backends.artifacts import not_kept
from allocsearch.core.errors import InputError, MachineError, line_of

NOT_INSTALLED: Final = "a bucket needs boto3, but it is not installed: pip install 'allocsearch[s3]'"
_CONNECT_SECONDS: Final = 10  # boto3's own 60, five times over, would leave a user without an answer for minutes


@dataclass(frozen=True)
class BucketArtifacts:
    """The ArtifactStore port on a bucket; what is not there for a machine's reasons is a MachineError.

    It travels to workers without a client, and so without credentials: each process has what boto3 finds in its own environment.

    Attributes:
        bucket: its name.
        prefix: what the keys of all that is stored begin with, before a slash.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def __getstate__(self) -> dict[str, str]:
        """A client holds locks and connections, which stay in their process."""
        return {"bucket": self.bucket, "prefix": self.prefix}

    def check(self) -> None:
        """Raise InputError where nothing can be stored, before anything is trained.

        That nothing is stored under a name must be seen, too: where keys may not be listed, S3 answers that it is forbidden.
        """
        key = self._key(f"check-{uuid4().hex}")
        try:
            store = self._store
            with self._told():
                store.write(key, BytesIO())
                store.remove(key)
                with suppress(ArtifactNotFound):
                    store.open_reader(key).close()
        except MachineError as error:
            raise InputError(f"{error}: mend that, or give another place with --artifacts") from error

    def write(self, name: str, file: Path) -> None:
        """Store a copy of `file` under `name`; S3 shows nobody half of it."""
        key, store = self._key(name), self._store
        with self._told(), file.open("rb") as stream:
            store.write(key, stream)

    def read(self, name: str, file: Path) -> None:
        """Copy what is stored under `name` to `file`."""
        key, store = self._key(name), self._store
        try:
            with self._told(), store.open_reader(key) as stream, file.open("wb") as target:
                shutil.copyfileobj(stream, target)
        except ArtifactNotFound as error:
            raise not_kept(name, self) from error

    def remove(self, name: str) -> None:
        """Forget `name`; S3 does not say whether it was there."""
        key, store = self._key(name), self._store
        with self._told():
            store.remove(key)

    def _key(self, name: str) -> str:
        """Names come from the database, which others may write; some servers resolve `..` in a key as in a path."""
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"Invalid artifact_id: a name in a bucket must be a single one, but got {name!r}")
        return f"{self.prefix}/{name}"

    @cached_property
    def _store(self) -> Boto3ArtifactStore:
        with self._told():
            return Boto3ArtifactStore(self.bucket, _client(), avoid_buf_copy=True)  # a copy would hold all of it in memory

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise MachineError(f"{NOT_INSTALLED} on {socket.gethostname()}") from error
        except ArtifactNotFound as error:
            if "(NoSuchBucket)" not in str(error.__cause__):
                raise
            raise self._refusal(error.__cause__) from error
        except _errors() as error:
            raise self._refusal(error) from error

    def _refusal(self, error: BaseException | None) -> MachineError:
        why = re.sub(r"//[^/@\s]*@", "//***@", line_of(error)).rstrip(".")  # an endpoint's URL may hold a password
        return MachineError(f"the bucket of weights must serve {socket.gethostname()}, but {self}: {why}")


def _client() -> Any:
    import boto3  # noqa: PLC0415 - an extra
    from botocore.config import Config  # noqa: PLC0415

    return boto3.session.Session().client("s3", config=Config(connect_timeout=_CONNECT_SECONDS))


def _errors() -> tuple[type[Exception], ...]:
    """What boto3 raises: they share no class. A ValueError is its word for an endpoint that is no URL."""
    from boto3.exceptions import Boto3Error  # noqa: PLC0415 - an extra
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    return Boto3Error, BotoCoreError, ClientError, ValueError
