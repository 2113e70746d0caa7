"""The callback of a trial of Optuna: it reports each validation, and the pruner may end the training."""

from typing import Any

import optuna

from regente.sweeps.optuna_internals import open_trial, stored_trial
from regente.sweeps.study import make, quiet
from regente.sweeps.trial_storage import open_storage
from regente.tracking.journal import Journal
from regente.training.callbacks.pruning import Pruning


class ReportTrial(Pruning):
    """Reports to the study's storage and asks its pruner, `{_target_: class, **arguments}`.

    `trial` is the trial's id in the storage.
    """

    def __init__(
        self, metric: str, journal: Journal, study: str, storage: str, trial: int, pruner: dict[str, Any]
    ) -> None:
        super().__init__(metric, journal)
        self.study, self.storage_url, self.trial_id, self.pruner = study, storage, trial, pruner

    def connect(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage = open_storage(self.storage_url)
        with quiet():
            study = optuna.load_study(
                study_name=self.study,
                storage=self.storage,
                sampler=optuna.samplers.RandomSampler(),  # it draws nothing here
                pruner=make(self.pruner),
            )
            self.trial = open_trial(study, self.trial_id)

    def report(self, value: float, validation: int) -> bool:
        with quiet():
            if validation not in stored_trial(self.storage, self.trial_id).intermediate_values:
                self.trial.report(value, validation)
            return bool(self.trial.should_prune())
