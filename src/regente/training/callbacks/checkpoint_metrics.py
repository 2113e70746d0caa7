"""The metrics in a checkpoint."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class CheckpointMetrics(Callback):
    """Writes the current metrics into each checkpoint, as plain floats under `metrics`."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["metrics"] = {name: float(value) for name, value in trainer.callback_metrics.items()}
