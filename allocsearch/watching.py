"""A study that runs elsewhere, watched: read again and again, drawn on a terminal, told by a line per change where there is none."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.live import Live
from rich.table import Table
from rich.text import Text

from allocsearch import terminal
from allocsearch.backends.study_record import StudyRecord
from allocsearch.search.results import Point
from allocsearch.views import status_json

_WIDTH: Final = 40
_FRONT: Final = 8
Read = Callable[[], StudyRecord]
ReadFront = Callable[[], Sequence[Point]]
Wait = Callable[[float], bool]
"""Waits so many seconds, or until the user wants to leave; says whether that is so."""


def watch(read: Read, front: ReadFront, *, every: float) -> None:
    """Show what `read` returns every so many seconds, until the study is complete or the user presses q.

    Args:
        read: how the study stands; its trials are not asked for.
        front: its Pareto front, which only a terminal has room for.
        every: seconds.
    """
    with _keys() as wait:
        if terminal.out.is_terminal:
            _draw(read, front, every, wait)
        else:
            _tell(read, every, wait)


def _draw(read: Read, front: ReadFront, every: float, wait: Wait) -> None:
    record, points = read(), front()
    with Live(_view(record, points), console=terminal.out, auto_refresh=False) as live:
        while not record.is_complete and not wait(every):
            before, record = record, read()
            if _state(record) != _state(before):
                points = front()
            live.update(_view(record, points), refresh=True)


def _tell(read: Read, every: float, wait: Wait) -> None:
    told = None
    while True:
        record = read()
        if (now := _state(record)) != told:
            sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {record.name}  {tally(status_json(record))}\n")
            sys.stdout.flush()
            told = now
        if record.is_complete or wait(every):
            return


def _state(record: StudyRecord) -> tuple[object, ...]:
    """What a change of is worth a line."""
    best = record.standing.best
    return record.standing.counts, best and best.trial.number, record.is_complete


def tally(found: dict[str, Any]) -> str:
    """How far a study is, in a line: of what `views.status_json` says."""
    counts, best = found["counts"], found["best"]
    parts = [f"{found['target_trials'] - found['missing_trials']}/{found['target_trials']} done"]
    parts += [f"{counts[state]} {state}" for state in ("running", "waiting", "failed") if counts[state]]
    parts.append("no result yet" if best is None else f"best accuracy {best['accuracy']:.3f} (trial {best['trial']})")
    if found["trials_per_hour"]:
        parts.append(f"{found['trials_per_hour']:.0f}/h")
    if found["complete"]:
        parts.append("complete")
    elif found["missing_trials"] == 0:
        parts.append("what follows the search is not complete")
    elif found["seconds_left"]:
        parts.append(f"about {terminal.duration(found['seconds_left'])} left")
    return ", ".join(parts)


def _view(record: StudyRecord, front: Sequence[Point]) -> Table:
    found = status_json(record)
    grid = Table.grid(padding=(0, 0, 1, 0))
    filled = _WIDTH * (found["target_trials"] - found["missing_trials"]) // max(1, found["target_trials"])
    bar = Text("━" * filled, style="green") + Text("━" * (_WIDTH - filled), style="dim")
    grid.add_row(Text(f"{record.name}  ") + bar + Text(f"  {tally(found)}"))
    if front:
        grid.add_row(terminal.front_table(front[-_FRONT:], title="Pareto front so far, on the search split", bars=True))
    for failure in found["failures"][-2:]:
        grid.add_row(Text(f"trial {failure['trial']} failed: {failure['reason']}"))
    grid.add_row(Text(f"{time.strftime('%H:%M:%S')}; q ends the watching, not the study", style="dim"))
    return grid


@contextmanager
def _keys() -> Iterator[Wait]:
    """A wait that `q` ends, where a keyboard is there; Ctrl-C stays what it is."""
    try:
        import termios  # noqa: PLC0415 - Unix only
        import tty  # noqa: PLC0415
    except ImportError:
        yield _sleep
        return
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        yield _sleep
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield lambda seconds: _pressed_q(keyboard, seconds)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _pressed_q(keyboard: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([keyboard], [], [], left)[0] and os.read(keyboard, 1) in {b"q", b"Q"}:
            return True
    return False
