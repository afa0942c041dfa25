"""What must hold after a fault, and whether it does."""

import functools
import tempfile

import optuna
from optuna.trial import TrialState

from allocsearch.backends.catalog import Catalog
from allocsearch.search.register import Register
from tests.conformance.toy import finish, proposals_of
from tests.faults.driver import FENCED, INTERRUPTED, TRIALS, confirm, spec


def wrong(url, name, seed, *, before):
    """What is not as it must be, in words; nothing where all is. `before` are the trials that had ended when the fault was over."""
    there_now = _stored(url, name, _confirmation(name))
    stored, beside = there_now.values()
    found = []
    if [trial.number for trial in stored] != list(range(TRIALS)):
        found.append(f"the numbers are {[trial.number for trial in stored]}")
    found += [f"trial {trial.number} is {trial.state.name}" for trial in [*stored, *beside] if trial.state != TrialState.COMPLETE]
    now = {(own, trial.number): _end(trial) for own, trials in there_now.items() for trial in trials}
    found += [f"trial {key} had ended and was ended again" for key, end in before.items() if now.get(key) != end]
    catalog = Catalog(url)
    record = catalog.record(name)
    if record.driver is not None or record.num_missing:
        found.append(f"driven by {record.driver}, {record.num_missing} trials missing")
    if outcome(catalog, name) != undisturbed(seed):
        found.append(f"found {outcome(catalog, name)}, undisturbed {undisturbed(seed)}")
    return found


def wrong_end(fault, hit, codes, log):
    """How drivers ended that should not have. A driver outlasts everything but its own fault, and the loss of the only raylet."""
    by_kind = {"kill": [[-9, 0]], "stop": [[FENCED, 0], [0, 0]], "restart": [[INTERRUPTED, 0]]}
    wanted = by_kind[fault.how] if fault.whom == "driver" else [[0]]
    found = ["Traceback"] if "Traceback" in log else []
    if 0 not in codes:
        return [*found, f"no driver came to the end: {codes}"]
    return [*found, f"drivers ended with {codes}"] if hit and fault.where != "local" and codes not in wanted else found


def ended(url, name):
    """The trials that have ended, and how and when."""
    found = _stored(url, name, _confirmation(name))
    return {(own, trial.number): _end(trial) for own, trials in found.items() for trial in trials if trial.state.is_finished()}


def outcome(catalog, name):
    """What a search has found: allocations by number, the front, and what was confirmed with which seed and score."""
    trials, beside = catalog.record(name).trials, catalog.companion(name, "confirmation")
    register = Register()
    for trial in trials:
        register.put(trial)
    front = [(trial.number, trial.outcome.accuracy, trial.cost.trainable) for trial in register.front]
    confirmed = [
        (str(trial.assignment.allocation), trial.assignment.seeds, trial.outcome and trial.outcome.nll)
        for trial in (beside.trials if beside else ())
    ]
    return [str(trial.assignment.allocation) for trial in trials], front, confirmed


@functools.cache
def undisturbed(seed):
    """The same study where nothing happens, in SQLite, asked and told in this process."""
    with tempfile.TemporaryDirectory() as folder:
        catalog, own = Catalog(f"sqlite:///{folder}/studies.db"), spec(seed)
        catalog.create("undisturbed", own, {"versions": {}})
        study = catalog.open("undisturbed", own, proposals_of(own))
        finish(study)
        beside = catalog.open_companion("undisturbed", "confirmation", own, proposals_of(own), {"versions": {}})
        confirm(study, beside, finish)
        return outcome(catalog, "undisturbed")


def _end(trial):
    return trial.state, trial.values, trial.datetime_complete


def _confirmation(name):
    return f"{name}/confirmation"


def _stored(url, *names):
    """As a user's plain Optuna shows them; no trials where there is no such study."""
    storage = optuna.storages.RDBStorage(url)
    try:
        there = optuna.get_all_study_names(storage)
        return {name: optuna.load_study(study_name=name, storage=storage).trials if name in there else [] for name in names}
    finally:
        storage.remove_session()
        storage.engine.dispose()
