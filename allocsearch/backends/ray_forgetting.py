"""Tune forgets the trials that have ended, which the study remembers: Tune would keep all of them, and look at each in every step."""

# ruff: noqa: SLF001 - Tune has no public way to let go of a trial

from typing import Any

from allocsearch.backends import ray_session  # noqa: F401 - before Ray: it sets what Ray reads when it is imported

# isort: split
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler


class ForgetfulOrder(FIFOScheduler):
    """First in, first out, as Tune has it; but when a trial ends, those that ended before it are let go of."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002 - Tune's signature
        """A trial with a result."""
        _forget_ended(tune_controller, but=trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial whose worker died."""
        _forget_ended(tune_controller, but=trial)


class NoProgress(TrialProgressCallback):
    """In the place of Tune's own, which at our verbosity prints nothing, and remembers each trial for it."""

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def on_trial_error(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def _forget_ended(controller: Any, *, but: Any) -> None:
    """Only trials that have no worker any more, to which nothing can happen; Tune is not done with the one that it speaks of."""
    ended = {trial for trial in controller._trials if trial.is_finished() and trial not in controller._trial_to_actor} - {but}
    controller._trials = [trial for trial in controller._trials if trial not in ended]
    kept = (controller._live_trials, controller._stopped_trials, controller._failed_trials, controller._trials_to_cache)
    for trials in kept:
        trials.difference_update(ended)
    for trial in ended:
        controller._trial_metadata.pop(trial.trial_id, None)
