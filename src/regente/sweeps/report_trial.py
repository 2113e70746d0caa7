"""A trial of Optuna that reports while it trains, and is pruned."""

from typing import Any

from regente.sweeps.study import make, quiet
from regente.sweeps.trial_storage import open_storage
from regente.tracking.journal import Journal
from regente.training.callbacks.pruning import Pruning


class ReportTrial(Pruning):
    """Reports to the study's storage and asks its pruner, `{_target_: class, **arguments}`."""

    def __init__(
        self, metric: str, journal: Journal, study: str, storage: str, trial: int, pruner: dict[str, Any]
    ) -> None:
        super().__init__(metric, journal)
        self.study, self.storage, self.number, self.pruner = study, storage, trial, pruner
        self.trial: Any = None  # Optuna's

    def connect(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with quiet():
            study = optuna.load_study(
                study_name=self.study,
                storage=open_storage(self.storage),
                sampler=optuna.samplers.RandomSampler(),  # it draws nothing here
                pruner=make(self.pruner),
            )
            self.trial = optuna.trial.Trial(study, self.number)

    def report(self, value: float, validation: int) -> bool:
        with quiet():
            stored = self.trial.study._storage.get_trial(self.trial._trial_id).intermediate_values
            if validation not in stored:
                self.trial.report(value, validation)
            return bool(self.trial.should_prune())
