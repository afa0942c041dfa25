"""Ctrl-C in two steps."""

import signal
import time

import pytest

from allocsearch.cli.interrupts import in_two_steps


class Finalised:
    """Is interrupted while Python clears it away, where what is raised is lost."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)


def interrupted_in_a_finaliser():
    with in_two_steps():
        Finalised()
        time.sleep(30)


def test_an_interrupt_that_falls_into_a_finaliser_is_not_lost(capfd):
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_in_a_finaliser()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert capfd.readouterr().err == "interrupted: clearing up; Ctrl-C again leaves at once\n"
