"""Pruning: the job of a search says how good it is while it trains, and stops when that is not good enough."""

import json
import math
import os
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from regente.sweep.protocols import TRIAL
from regente.tracking.journal import Journal


class ReportTrial(Callback):
    """Reports a metric after each validation to the search's storage and asks its pruner; all ranks stop together.

    A storage that does not answer ends the reports, not the training.
    """

    def __init__(self, facts: dict[str, Any], journal: Journal) -> None:
        self.facts, self.journal = facts, journal
        self.validations = 0
        self.pruned = False
        self.trial: Any = None  # Optuna's, on rank 0

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._attempt(self._open)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        prune = self.trial is not None and bool(self._attempt(lambda: self._report(trainer)))
        self.validations += 1
        at_end = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs > 0
        if trainer.strategy.broadcast(prune and not at_end, src=0):
            self.pruned = trainer.should_stop = True
            self.journal.write("tags", values={"regente.pruned": f"after validation {self.validations}"})

    def _open(self) -> None:
        import optuna

        from regente.sweep.study import make
        from regente.sweep.trial_storage import open_storage

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.load_study(
            study_name=self.facts["study"],
            storage=open_storage(self.facts["storage"]),
            sampler=optuna.samplers.RandomSampler(),  # it draws nothing here
            pruner=make(self.facts["pruner"]),
        )
        self.trial = optuna.trial.Trial(study, self.facts["trial"])

    def _report(self, trainer: Trainer) -> bool:
        """Whether the pruner gives the trial up; what an earlier attempt at the same trial has reported stays."""
        value = float(trainer.callback_metrics.get(self.facts["metric"], math.nan))
        if (
            self.validations
            not in self.trial.study._storage.get_trial(self.trial._trial_id).intermediate_values
        ):
            self.trial.report(value, self.validations)
        return bool(self.trial.should_prune())

    def _attempt(self, act: Any) -> Any:
        from regente.sweep.study import quiet

        try:
            with quiet():
                return act()
        except Exception as error:
            self.trial = None
            reason = f"{type(error).__name__}: {error}"
            self.journal.write("tags", values={"regente.unreported": reason.splitlines()[0][:500]})
            return None


def reporter(journal: Journal) -> ReportTrial | None:
    """The callback of a search's job whose trials are pruned."""
    facts = os.environ.get(TRIAL)
    return ReportTrial(json.loads(facts), journal) if facts else None
