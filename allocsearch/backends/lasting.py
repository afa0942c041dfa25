"""A storage that outlasts its database's restarts: what is asked of it while the server is away is asked again until it is back.

Asking again must change nothing. A connection may break after a transaction was committed and before anybody heard of it; Optuna
itself would try again at once, and insert a second trial. So an error of the connection is taken out of its hands, and before a write
is repeated, we look whether it has happened.
"""

# ruff: noqa: D102 - the methods are Optuna's, and documented there

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa
import tenacity
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from allocsearch.backends.urls import shown_url
from allocsearch.core.errors import InputError, interrupted, line_of

PATIENCE_SECONDS: Final = 120.0
_LONGEST_PAUSE_SECONDS: Final = 5.0
_GONE: Final = frozenset({"57P01", "57P02", "57P03", "40001", "40P01"})  # PostgreSQL: shut down, crashed, starting; conflicts
_BUSY: Final = ("database is locked", "database table is locked")

_Found = TypeVar("_Found")
_Given = ParamSpec("_Given")
_calls = threading.local()


class DatabaseAwayError(Exception):
    """The database cannot be reached now, or is busy. Not SQLAlchemy's error, which Optuna would swallow and act upon."""


def _repeated(method: Callable[Concatenate[RDBStorage, _Given], _Found]) -> Callable[Concatenate["LastingStorage", _Given], _Found]:
    """The same method of a lasting storage, where it does no harm to call it twice."""

    @wraps(method)
    def call(lasting: "LastingStorage", /, *given: _Given.args, **named: _Given.kwargs) -> _Found:
        return lasting.repeated(lambda: method(lasting._storage, *given, **named))  # noqa: SLF001 - as a method of the class would

    return call


class LastingStorage(BaseStorage):
    """Optuna's storage, each of whose calls is one transaction and may be repeated.

    Args:
        storage: the storage itself.
        patience: seconds for which a call is repeated.

    Raises:
        InputError: from any call, where the database is still away after that.
    """

    def __init__(self, storage: RDBStorage, *, patience: float = PATIENCE_SECONDS) -> None:
        self._storage, self._patience = storage, patience
        event.listen(storage.engine, "handle_error", _tell_apart)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        def landed() -> int | None:
            try:
                return self._storage.get_study_id_from_name(str(study_name))
            except KeyError:
                return None

        return self._call(lambda: self._storage.create_new_study(directions, study_name), landed)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._call(
            lambda: self._storage.create_new_trial(study_id, template_trial), lambda: self._newest_like(study_id, template_trial)
        )

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        def landed() -> bool | None:
            return True if self._storage.get_trial(trial_id).state == state else None

        return self._call(lambda: self._storage.set_trial_state_values(trial_id, state, values), landed)

    delete_study = _repeated(RDBStorage.delete_study)
    set_study_user_attr = _repeated(RDBStorage.set_study_user_attr)
    set_study_system_attr = _repeated(RDBStorage.set_study_system_attr)
    get_study_id_from_name = _repeated(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _repeated(RDBStorage.get_study_name_from_id)
    get_study_directions = _repeated(RDBStorage.get_study_directions)
    get_study_user_attrs = _repeated(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _repeated(RDBStorage.get_study_system_attrs)
    get_all_studies = _repeated(RDBStorage.get_all_studies)
    set_trial_param = _repeated(RDBStorage.set_trial_param)
    set_trial_intermediate_value = _repeated(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = _repeated(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _repeated(RDBStorage.set_trial_system_attr)
    get_trial = _repeated(RDBStorage.get_trial)
    get_all_trials = _repeated(RDBStorage.get_all_trials)

    def read(self, look: Callable[[sa.Engine], _Found]) -> _Found:
        """What `look` finds in the database beside Optuna's interface; it writes nothing."""
        return self.repeated(lambda: look(self._storage.engine))

    def repeated(self, action: Callable[[], _Found]) -> _Found:
        """What `action` finds, which asks the same database by itself; it writes nothing."""
        return self._call(action)

    def remove_session(self) -> None:
        self._storage.remove_session()

    def _newest_like(self, study_id: int, template: FrozenTrial | None) -> int | None:
        """The study's newest trial, where it is the one that was to be made: no two trials of a study begin with the same attributes."""
        newest = sa.text("SELECT max(trial_id) FROM trials WHERE study_id = :study")
        with self._storage.engine.connect() as connection:
            trial_id = connection.execute(newest, {"study": study_id}).scalar()
        if trial_id is None or template is None:
            return None
        return int(trial_id) if _content(self._storage.get_trial(trial_id)) == _content(template) else None

    def _call(self, action: Callable[[], _Found], landed: Callable[[], _Found | None] = lambda: None) -> _Found:
        """`action`, or from the second time on what `landed` finds that an earlier time has left."""

        def attempt(state: tenacity.RetryCallState) -> _Found:
            with _taken_in_hand():
                found = landed() if state.attempt_number > 1 else None
                return action() if found is None else found

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(DatabaseAwayError),
            stop=tenacity.stop_after_delay(self._patience),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=_LONGEST_PAUSE_SECONDS),
            reraise=True,
        )
        try:
            for trial in retrying:
                with trial:
                    return attempt(trial.retry_state)
        except DatabaseAwayError as error:
            raise InputError(
                f"the database {shown_url(str(self._storage.engine.url))} must be back {self._patience:.0f} s after it went away, but: "
                f"{error}: all that had ended is kept; resume when it is back"
            ) from error
        raise AssertionError("tenacity returns or raises")


@contextmanager
def _taken_in_hand() -> Iterator[None]:
    _calls.active = True
    try:
        yield
    finally:
        _calls.active = False


def _tell_apart(context: ExceptionContext) -> BaseException | None:
    """What takes the place of an error of SQLAlchemy's; None leaves it, as in anything but a call of ours."""
    # Ctrl-C breaks a connection off, and what is seen of it is the broken connection: a pre-ping would make another, and go on.
    if interrupted(context.original_exception):
        return KeyboardInterrupt()
    if context.is_pre_ping or not getattr(_calls, "active", False):
        return None
    error = context.original_exception
    if not isinstance(error, Exception) or context.sqlalchemy_exception is None:
        return None
    unreachable = context.is_disconnect or (context.connection is None and type(error).__name__ == "OperationalError")
    if unreachable or getattr(error, "sqlstate", None) in _GONE or any(text in str(error) for text in _BUSY):
        return DatabaseAwayError(line_of(error))
    return None


def _content(trial: FrozenTrial) -> str:
    return json.dumps([trial.params, trial.user_attrs, trial.system_attrs], sort_keys=True)
