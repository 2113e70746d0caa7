"""The loss of training."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.errors import DivergedError
from regente.training.grouped_steps import steps_of
from regente.training.lightning_internals import logged_in_training


class TrainingLoss(Callback):
    """Logs `train/loss`, the mean since it was last logged, with the learning rate `train/lr`.

    The losses stay on the device; the host reads them every `trainer.log_every_n_steps` steps of an epoch and before
    each validation. A loss that is not finite ends the run. A task that logs a `train/loss` itself keeps its own.
    """

    def __init__(self, *, skipping: bool = False) -> None:
        self.skipping = skipping  # steps whose loss is not finite are left out
        self._reset()

    def _reset(self) -> None:
        self.latest = math.nan  # the last logged mean
        self.parts: list[torch.Tensor] = []  # losses of the batches of an incomplete step
        self.waiting: list[torch.Tensor] = []  # losses that the host has not read, each [n]
        self.rates: list[float] = []  # the learning rate after each of their steps
        self.read = 0  # steps of this epoch that the host has read
        self.sum = 0.0  # of their losses

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # also when a training that diverged is started again
            self._reset()

    def state_dict(self) -> dict[str, Any]:
        waiting = torch.cat(self.waiting) if self.waiting else torch.zeros(0)
        facts = {"latest": self.latest, "rates": list(self.rates), "read": self.read, "sum": self.sum}
        return {"waiting": waiting, **facts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        waiting = state_dict["waiting"]
        self.waiting = [waiting] if len(waiting) else []
        self.latest, self.rates = state_dict["latest"], state_dict["rates"]
        self.read, self.sum = state_dict["read"], state_dict["sum"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.read, self.sum = 0, 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if steps_of(pl_module) is not None:
            self.waiting.append(outputs["losses"])
            self.rates += outputs["rates"]
        elif "loss" not in outputs:  # a user's task may skip a step, or return no loss
            return
        elif (loss := self._step_loss(trainer, outputs["loss"].detach().view(1), batch_idx)) is not None:
            self.waiting.append(loss)
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.read + len(self.rates)) // every > self.read // every:
            self._log(trainer, every)

    def _step_loss(self, trainer: Trainer, loss: torch.Tensor, batch_idx: int) -> torch.Tensor | None:
        """The loss of an optimizer step at its last batch: the mean over its batches. None at its other batches."""
        number = trainer.accumulate_grad_batches
        if number == 1:
            return loss
        self.parts.append(loss if trainer.strategy.handles_gradient_accumulation else loss * number)
        if (batch_idx + 1) % number and not trainer.is_last_batch:
            return None
        mean = torch.cat(self.parts).mean().view(1)
        self.parts = []
        return mean

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer)
        if not trainer.sanity_checking:  # else a checkpoint could keep NaN weights as the best
            require_finite_weights(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer)
        if self.read and not logged_in_training(trainer, "train/loss"):
            pl_module.log("train/loss", self.sum / self.read, logger=False, rank_zero_only=True)

    def _log(self, trainer: Trainer, every: int | None = None) -> None:
        """Log the mean of each complete group of `every` steps, or of all losses that wait."""
        if not self.waiting:
            return
        # those of a loaded state are on the CPU
        losses = torch.cat([each.to(self.waiting[-1].device) for each in self.waiting])
        last = trainer.global_step
        if trainer.world_size > 1:  # each rank has the losses of its own samples
            losses = trainer.strategy.reduce(losses, reduce_op="mean")
        values, rates = losses.cpu().double().tolist(), self.rates
        self._require_finite(trainer, values, last)
        begin = 0
        while begin < len(values):
            size = len(values) - begin if every is None else every - self.read % every
            if begin + size > len(values):
                break
            self._write(
                trainer,
                values[begin : begin + size],
                rates[begin + size - 1],
                last - len(values) + begin + size,
            )
            begin += size
        self.waiting, self.rates = [losses[begin:]] if begin < len(values) else [], rates[begin:]

    def _write(self, trainer: Trainer, losses: list[float], rate: float, step: int) -> None:
        self.read, self.sum = self.read + len(losses), self.sum + sum(filter(math.isfinite, losses))
        losses = [loss for loss in losses if math.isfinite(loss)] or losses
        self.latest = sum(losses) / len(losses)
        own = {} if logged_in_training(trainer, "train/loss") else {"train/loss": self.latest}
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.log_metrics({**own, "train/lr": rate}, step=step)

    def require_finite(self, trainer: Trainer) -> None:
        """Check the losses that are not logged yet, and make them the same on all ranks. Called before a state is saved.

        Raises:
            DivergedError: when one of them is not finite.
        """
        if self.waiting:
            losses = torch.cat([each.to(self.waiting[-1].device) for each in self.waiting])
            if trainer.world_size > 1:
                losses = trainer.strategy.reduce(losses, reduce_op="mean")
            self.waiting = [losses]
            self._require_finite(trainer, losses.tolist(), trainer.global_step)

    def _require_finite(self, trainer: Trainer, values: list[float], last: int) -> None:
        """Raise DivergedError for the first value that is not finite; the last value is that of step `last`."""
        finite = sum(map(math.isfinite, values))
        if finite == len(values) or (self.skipping and finite):
            return
        index = next(index for index, value in enumerate(values) if not math.isfinite(value))
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.log_metrics({"train/loss": values[index]}, step=last - len(values) + index + 1)
        batch = (self.read + index) * trainer.accumulate_grad_batches
        where = f"step {last - len(values) + index + 1} (epoch {trainer.current_epoch}, batch {batch})"
        raise diverged(trainer, f"train/loss is {values[index]} at {where}")


def diverged(trainer: Trainer, what: str) -> DivergedError:
    """The error, which names the last good weights and what to try."""
    good = [path for c in trainer.checkpoint_callbacks if (path := getattr(c, "best_model_path", ""))]
    return DivergedError(
        f"{what}; last good weights: {good[0] if good else 'none yet'}; "
        "try a lower optimizer.lr or trainer.gradient_clip_val=1, or check the data; "
        "trainer.on_nan=rollback goes back to the last state and halves the learning rate"
    )


def require_finite_weights(trainer: Trainer, module: LightningModule) -> None:
    """Raise DivergedError if a weight is not finite, as after a step with a gradient of NaN."""
    bad = next((name for name, p in module.named_parameters() if not torch.isfinite(p).all()), "")
    if bad:
        where = f"after step {trainer.global_step} (epoch {trainer.current_epoch})"
        raise diverged(trainer, f"the weights {bad} are not finite {where}")
