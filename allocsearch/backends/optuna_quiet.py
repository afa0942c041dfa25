"""Optuna's advisory output, kept off the user's terminal."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def experimental() -> Iterator[None]:
    """For calls that Optuna marks experimental: our pinned major version decides, not each user's patience."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield
