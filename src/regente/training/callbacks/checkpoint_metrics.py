"""The metrics in a checkpoint."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from regente.jobs.result import split_of
from regente.training.checkpoints.saving import SafeSaving


class CheckpointMetrics(Callback):
    """Writes the current metrics into each checkpoint, as plain floats under `metrics`; knows those of the validation."""

    def __init__(self) -> None:
        self.validated: set[str] = set()  # names that were logged in a validation
        self.before: dict[str, Tensor] = {}  # the metrics when the validation began

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        saving = trainer.strategy.checkpoint_io
        if isinstance(saving, SafeSaving):  # also with save_weights_only, where Lightning asks no callback
            saving.more = lambda: {"metrics": _current(trainer)}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["metrics"] = _current(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            now = trainer.callback_metrics.items()
            self.validated |= {name for name, value in now if self.before.get(name) is not value}

    def state_dict(self) -> dict[str, Any]:
        return {"validated": sorted(self.validated)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated = set(state_dict["validated"])

    def of_validation(self, metrics: dict[str, float], monitor: str) -> dict[str, float]:
        """Those that were logged in a validation or are named so, and the monitored one."""
        return {
            name: value
            for name, value in metrics.items()
            if name in self.validated or split_of(name)[0] == "val" or name == monitor
        }


def _current(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
