"""One driver per study: a lease in the database, and a fence around every write that is made under it.

A driver that was stopped, or cut off from the database, for longer than its lease lasts may be replaced while it still believes that
the study is its own. So each lease has an *epoch*, which grows with every change of hands, and every write looks at it within its own
transaction: what an earlier driver still has to say is refused, however late it comes.
"""

import math
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker

from allocsearch.backends.own_tables import LEASES, Now
from allocsearch.core.errors import InputError, LostLeaseError, quoted

_SECONDS: Final = 60.0
_SAME_BIRTH_SECONDS: Final = 5.0
_RELEASE_SECONDS: Final = 2.0


def lease_seconds() -> float:
    """How long a lease lasts unless it is renewed: what `ALLOCSEARCH_LEASE_SECONDS` says, else a minute.

    Raises:
        InputError: where that is no time.
    """
    given = os.environ.get("ALLOCSEARCH_LEASE_SECONDS", "")
    try:
        seconds = float(given) if given else _SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"ALLOCSEARCH_LEASE_SECONDS must be a number of seconds above 0, but it is {quoted(given)}")
    return seconds


@dataclass(frozen=True, slots=True)
class Holder:
    """A driver's process: `host` and `pid` tell people, `place` and `born` whether it is gone.

    `place` is one boot of one machine, and there one table of process ids (a container has its own).
    """

    host: str
    pid: int
    place: str
    born: float

    @classmethod
    def here(cls) -> "Holder":
        """This process."""
        return cls(socket.gethostname()[:255], os.getpid(), _place(), psutil.Process().create_time())

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended. Of another place nothing is certain."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)  # no signal, only the question
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            pass
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.born) > _SAME_BIRTH_SECONDS
        except psutil.Error:  # /proc hides other users' processes on some machines
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def holder_of(engine: sa.Engine, study: str) -> Holder | None:
    """Who drives `study` now; None where nobody does."""
    if not sa.inspect(engine).has_table(LEASES.name):
        return None
    with engine.connect() as connection:
        row = connection.execute(sa.select(LEASES).where(LEASES.c.study == study, LEASES.c.expires_at > Now())).one_or_none()
    return None if row is None or _holder(row).is_gone else _holder(row)


class Lease:
    """The right to drive `study`, as long as `epoch` is the one in the database.

    Args:
        engine: of the storage.
        study: its name.
        see: the command that shows how the study stands, for whoever loses it.

    Raises:
        InputError: where another driver has it.
    """

    def __init__(self, engine: sa.Engine, study: str, *, see: str) -> None:
        self.study, self.seconds, self._see = study, lease_seconds(), see
        self._engine = engine
        self.epoch = self._take(Holder.here())

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the lease while this lasts, and lets go of it at the end."""
        ended = threading.Event()
        thread = threading.Thread(target=self._keep, args=(ended,), name="allocsearch-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_RELEASE_SECONDS)  # a database that does not answer must not hold up the end: the lease expires by itself

    def confirm(self) -> None:
        """`check`, for this moment only."""
        with self._engine.begin() as connection:
            self.check(connection)

    def check(self, connection: sa.Connection) -> None:
        """Within the transaction of `connection`, which has written already: nobody takes the lease before it ends.

        Raises:
            LostLeaseError: where somebody has.
        """
        # PostgreSQL holds the row until the transaction ends. SQLite knows no such clause: there a transaction that has written holds all.
        row = connection.execute(sa.select(LEASES).where(self._mine).with_for_update(read=True)).one_or_none()
        if row is None or row.epoch != self.epoch:
            now = "nobody" if row is None or not row.expires_at else str(_holder(row))
            raise LostLeaseError(
                f"only the driver that holds a study may write to it, but {self.study!r} is held by {now} now: "
                f"nothing was overwritten; see {self._see}"
            )

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return LEASES.c.study == self.study

    def _take(self, me: Holder) -> int:
        self._make_row()
        with self._engine.begin() as connection:
            row = connection.execute(sa.select(LEASES).where(self._mine)).one()
            free = sa.true() if _holder(row).is_gone else LEASES.c.expires_at <= Now()
            taking = sa.update(LEASES).where(self._mine, LEASES.c.epoch == row.epoch, free)
            new = {"epoch": row.epoch + 1, "expires_at": Now() + self.seconds, **asdict(me)}
            if connection.execute(taking.values(new)).rowcount == 1:
                return int(row.epoch) + 1
            row = connection.execute(sa.select(LEASES).where(self._mine)).one()
        until = datetime.fromtimestamp(row.expires_at, UTC)
        raise InputError(
            f"a study must have one driver, but {_holder(row)} is running {self.study!r} and has it until {until:%H:%M:%S} UTC, "
            "or longer while it lives: wait for it, or stop it"
        )

    def _make_row(self) -> None:
        free = {"epoch": 0, "expires_at": 0.0, "host": "", "pid": 0, "place": "", "born": 0.0}
        with suppress(IntegrityError), self._engine.begin() as connection:  # another driver was quicker
            if connection.execute(sa.select(LEASES.c.study).where(self._mine)).first() is None:
                connection.execute(sa.insert(LEASES).values(study=self.study, **free))

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(self.seconds / 3):
            with suppress(SQLAlchemyError):  # the database is away: the next turn tries again, and the fence stands all the time
                if not self._update(expires_at=Now() + self.seconds):
                    return
        with suppress(SQLAlchemyError):  # as above; it expires by itself
            self._update(epoch=self.epoch + 1, expires_at=0.0)

    def _update(self, **values: Any) -> bool:
        """Whether the lease was still ours."""
        with self._engine.begin() as connection:
            own = sa.update(LEASES).where(self._mine, LEASES.c.epoch == self.epoch)
            return connection.execute(own.values(values)).rowcount == 1


class Fence:
    """Checks `lease`, once there is one, within every transaction in which a session of `sessions` writes."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self.lease: Lease | None = None
        event.listen(sessions, "after_flush", self._flushed)
        event.listen(sessions, "do_orm_execute", self._executed)

    def _flushed(self, session: Session, _context: Any) -> None:
        self._check(session)

    def _executed(self, state: ORMExecuteState) -> Any:
        if not (state.is_insert or state.is_update or state.is_delete):
            return None  # the session goes on as if nobody had listened
        result = state.invoke_statement()
        self._check(state.session)
        return result

    def _check(self, session: Session) -> None:
        if self.lease is not None:
            self.lease.check(session.connection())


def _holder(row: sa.Row[Any]) -> Holder:
    return Holder(row.host, row.pid, row.place, row.born)


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: the time of the last start
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"[:255]
