"""Every use of what Optuna does not document for users, with its reason; a test fails when a release moves one of them."""

import optuna
from optuna.storages.journal import JournalFileOpenLock
from optuna.trial import Trial


def open_trial(study: optuna.Study, trial_id: int) -> Trial:
    """A running trial, in a process that did not ask for it.

    Reason: a job reports to its trial and asks the pruner in a process of its own. Optuna has no public way from a trial's
    id to such a `Trial`; its own integrations call this constructor too.
    """
    return Trial(study, trial_id)


class FileLock(JournalFileOpenLock):
    """The base of a lock for Optuna's journal file; subclasses give `acquire` and `release`.

    Reason: `JournalFileBackend` calls these two methods alone, and the base class of Optuna's locks is private. The
    constructor of the class above is left out on purpose: it needs a path of its own.
    """

    def __init__(self) -> None:
        pass
