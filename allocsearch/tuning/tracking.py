"""Trackers that a training reports to when it is asked to: that they will take it is sure before anything is loaded."""

from inspect import signature
from typing import Any, Final, Literal

from accelerate.utils import is_tensorboard_available, is_wandb_available

from allocsearch.core.errors import InputError, gist

Tracker = Literal["tensorboard", "wandb"]
_REMEDY: Final = "run wandb login, set WANDB_API_KEY, or set WANDB_MODE=offline and send it later with wandb sync"


def check(tracker: Tracker | None) -> None:
    """Refuse a tracker that is not installed, and one that would stop in the middle to ask for a login.

    Raises:
        InputError: with the remedy.
    """
    there = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}
    if tracker is not None and not there[tracker]():
        raise InputError(f"--report-to {tracker} needs the package {tracker}, which is not installed: pip install {tracker}")
    if tracker == "wandb":
        import wandb  # noqa: PLC0415 - no dependency of ours

        _check_login(wandb)


def _check_login(wandb: Any) -> None:
    if wandb.setup().settings.mode != "online":
        return
    try:
        # Older releases can only be asked for the key itself.
        is_known = wandb.login(prompt=False) if "prompt" in signature(wandb.login).parameters else bool(wandb.api.api_key)
    except wandb.errors.Error as error:
        raise InputError(f"--report-to wandb must be able to log in, but: {gist(error)}: {_REMEDY}") from error
    if not is_known:
        raise InputError(f"--report-to wandb must find a login, but there is none: {_REMEDY}")
