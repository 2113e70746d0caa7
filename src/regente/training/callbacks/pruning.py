"""Pruning: a trial of a search reports its metric during the training, and stops early if it is not good enough."""

import json
import math
import os
from abc import abstractmethod
from typing import Any

from hydra.utils import instantiate
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.jobs.job import TRIAL
from regente.tracking.journal import Journal


class Pruning(Callback):
    """Reports a metric after each validation and asks whether to stop; all ranks stop together.

    A source of trials names its own subclass in the environment of each trial, see `TRIAL`. If the storage fails, the
    reports end and the training continues.
    """

    def __init__(self, metric: str, journal: Journal) -> None:
        self.metric, self.journal = metric, journal
        self.validations = 0
        self.pruned = False
        self.open = False  # on rank 0, until the storage fails

    @abstractmethod
    def connect(self) -> None:
        """Open the trial in the storage."""

    @abstractmethod
    def report(self, value: float, validation: int) -> bool:
        """Store the metric after a validation, numbered from 0; whether the trial is to stop.

        Values that an earlier attempt of the same trial reported stay.
        """

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.open = True
            self._try(self.connect)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = float(trainer.callback_metrics.get(self.metric, math.nan))
        prune = bool(self._try(lambda: self.report(value, self.validations)))
        self.validations += 1
        at_end = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs > 0
        if trainer.strategy.broadcast(prune and not at_end, src=0):
            self.pruned = trainer.should_stop = True
            self.journal.write("tags", values={"regente.pruned": f"after validation {self.validations}"})

    def _try(self, act: Any) -> Any:
        if not self.open:
            return None
        try:
            return act()
        except Exception as error:
            self.open = False
            reason = f"{type(error).__name__}: {error}"
            self.journal.write("tags", values={"regente.unreported": reason.splitlines()[0][:500]})
            return None


def pruning(journal: Journal) -> Pruning | None:
    """The callback that the source of trials names, if this job is one of its trials."""
    node = os.environ.get(TRIAL)
    return instantiate(json.loads(node), journal=journal, _convert_="all") if node else None
