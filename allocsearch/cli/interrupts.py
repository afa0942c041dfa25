"""Ctrl-C in two steps: once ends what runs and clears it away, twice leaves at once. What was told stands in the database either way."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from allocsearch import logs
from allocsearch.core.errors import interrupted

_CODE: Final = 130
_SHOW_CURSOR: Final = "\x1b[?25h"  # a live view hides it
_SOON_SECONDS: Final = 0.01


@contextmanager
def in_two_steps() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt here; pressed again, it ends the process, whatever that is doing.

    Nothing changes where the main thread is another, or Ctrl-C means something else already: a shell lets its background jobs ignore it.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _first)
    theirs = sys.unraisablehook
    sys.unraisablehook = _heeding(theirs)
    try:
        yield
    finally:
        sys.unraisablehook = theirs
        if signal.getsignal(signal.SIGINT) is _first:  # else the process is about to end, and a second Ctrl-C must still end it at once
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def resumable(again: Callable[[], str], *, kept: str = "everything is kept. Continue") -> Iterator[None]:
    """Where Ctrl-C ends what runs within, says how to go on: `again` makes that command.

    What is raised then is a KeyboardInterrupt, also where it was a library's error by the time that it came here.
    """
    try:
        yield
    except BaseException as error:
        if not interrupted(error):
            raise
        logs.note(f"interrupted; {kept} with: {again()}")
        raise KeyboardInterrupt from error


def _first(_number: int, _frame: Any) -> None:
    signal.signal(signal.SIGINT, _second)
    logging.getLogger("sqlalchemy").setLevel(logging.CRITICAL)  # a statement that is broken off is rolled back, with a traceback in its log
    _write("interrupted: clearing up; Ctrl-C again leaves at once")
    raise KeyboardInterrupt


def _heeding(theirs: Callable[[Any], object]) -> Callable[[Any], None]:
    """A hook for errors that Python swallows, such as those in finalisers, into which a signal may fall: the interrupt comes again soon."""

    def hook(swallowed: Any) -> None:
        if not issubclass(swallowed.exc_type, KeyboardInterrupt):
            theirs(swallowed)
            return
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)

    return hook


def _second(_number: int, _frame: Any) -> None:
    _write("left at once; what had been told is kept, and the same study can be resumed" + (_SHOW_CURSOR if sys.stderr.isatty() else ""))
    os._exit(_CODE)


def _write(line: str) -> None:
    """Past Python's buffers, which whatever was interrupted may be holding. Machines are told at the end of the run."""
    if not logs.as_json():
        os.write(2, f"{line}\n".encode())
