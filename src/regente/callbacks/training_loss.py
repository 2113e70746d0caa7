"""The loss of training."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.errors import DivergedError


class TrainingLoss(Callback):
    """Logs `train/loss`, the mean since it was last logged, with the learning rate `train/lr`.

    The losses are added up on the device; the host reads the sum every `trainer.log_every_n_steps` batches and
    before each validation. A loss that is not finite ends the run.
    """

    def __init__(self) -> None:
        self.latest = math.nan  # the last logged mean
        self.sum: torch.Tensor | None = None
        self.count = 0
        self.epoch_sum, self.epoch_count = 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_sum, self.epoch_count = 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"].detach()
        self.sum = loss if self.sum is None else self.sum + loss
        self.count += 1
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer)  # before a checkpoint could take weights that are not numbers for the best

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer)
        if self.epoch_count:
            pl_module.log("train/loss", self.epoch_sum / self.epoch_count, logger=False, rank_zero_only=True)

    def _log(self, trainer: Trainer) -> None:
        if self.sum is None:
            return
        total = self.sum.item()
        self.latest = total / self.count
        self.epoch_sum, self.epoch_count = self.epoch_sum + total, self.epoch_count + self.count
        counted, self.sum, self.count = self.count, None, 0
        step = trainer.global_step
        if trainer.logger is not None and trainer.is_global_zero:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            trainer.logger.log_metrics({"train/loss": self.latest, "train/lr": rate}, step=step)
        if not math.isfinite(self.latest):
            good = [path for c in trainer.checkpoint_callbacks if (path := getattr(c, "best_model_path", ""))]
            raise DivergedError(
                f"train/loss is {self.latest} at step {step} (epoch {trainer.current_epoch}, within the last "
                f"{counted} batches); last good weights: {good[0] if good else 'none yet'}; "
                "try a lower optimizer.lr or trainer.gradient_clip_val=1, or look at the data"
            )
