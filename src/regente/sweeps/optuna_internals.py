"""Every use of what Optuna does not document for users, with its reason; a test fails when a release moves one of them."""

from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial


def open_trial(study: optuna.Study, trial_id: int) -> Trial:
    """A running trial, in a process that did not ask for it.

    Reason: a job reports to its trial and asks the pruner in a process of its own. Optuna has no public way from a trial's
    id to such a `Trial`; its own integrations call this constructor too.
    """
    return Trial(study, trial_id)


def trial_id(storage: BaseStorage, study: str, number: int) -> int:
    """The id in the storage of a study's trial.

    Reason: `open_trial` needs it. Optuna's users know trials by number; a storage's own methods are for Optuna's use.
    """
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study), number)


def stored_trial(storage: BaseStorage, id_: int) -> FrozenTrial:
    """A trial as the storage has it now.

    Reason: `Study.get_trials` reads all trials, for one that is looked at after each validation.
    """
    return storage.get_trial(id_)


def set_user_attribute(storage: BaseStorage, id_: int, name: str, value: Any) -> None:
    """Set a user attribute of a running trial that this process did not ask for.

    Reason: `Trial.set_user_attr` does it for the trials that this process has asked for.
    """
    storage.set_trial_user_attr(id_, name, value)


class FileLock(JournalFileOpenLock):
    """The base of a lock for Optuna's journal file; subclasses give `acquire` and `release`.

    Reason: `JournalFileBackend` calls these two methods alone, and the base class of Optuna's locks is private. The
    constructor of the class above is left out on purpose: it needs a path of its own.
    """

    def __init__(self) -> None:
        pass
