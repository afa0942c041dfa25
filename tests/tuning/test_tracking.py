"""A training that is to report to W&B finds out at once whether it can, and asks nobody for a login."""

import sys
from types import SimpleNamespace

import pytest

from allocsearch.core.errors import InputError
from allocsearch.tuning import tracking


class WandbError(Exception):
    pass


def log_in(*, prompt=True):
    raise AssertionError(f"must not be asked here, prompt {prompt}")


def log_in_of_old():
    raise AssertionError("would wait for an answer")


def known(found):
    def login(*, prompt=True):
        assert not prompt, "would wait for an answer"
        if isinstance(found, Exception):
            raise found
        return found

    return login


@pytest.fixture
def check(monkeypatch):
    def of(mode, login, key=None):
        fake = SimpleNamespace(
            setup=lambda: SimpleNamespace(settings=SimpleNamespace(mode=mode)),
            login=login,
            api=SimpleNamespace(api_key=key),
            errors=SimpleNamespace(Error=WandbError),
        )
        monkeypatch.setitem(sys.modules, "wandb", fake)
        monkeypatch.setattr(tracking, "is_wandb_available", lambda: True)
        tracking.check("wandb")

    return of


def test_a_login_or_no_need_for_one_will_do(check):
    check("online", known(found=True))
    check("offline", log_in)
    check("disabled", log_in)
    check("online", log_in_of_old, key="of an older release")


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (known(found=False), "but there is none: run wandb login"),
        (known(WandbError("no\nanswer")), "but: no answer: run wandb login"),
        (log_in_of_old, "but there is none: run wandb login"),
    ],
)
def test_no_login_is_said_at_once(check, login, said):
    with pytest.raises(InputError, match=said):
        check("online", login)
