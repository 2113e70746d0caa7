"""States from which a run goes on as if it had never stopped."""

import time
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Timer

from regente.jobs import checkpoint_files
from regente.training.callbacks.training_loss import TrainingLoss, require_finite_weights

LAST = "last.ckpt"  # beside the best weights: leads to the newest state
APART = 16  # batches between two agreements of several ranks


class ResumeStates(Callback):
    """Saves the state every so many minutes, and at the end, in `folder`; keeps the newest `keep`.

    It is taken at the start of a batch whose gradients do not add to others', the one place from which Lightning's
    loops can be put back exactly. A run that is told to stop in a validation saves one that begins with it.
    """

    def __init__(
        self, every_minutes: Annotated[float, Ge(0)] = 3, keep: Annotated[int, Ge(1)] = 2, folder: str = ""
    ) -> None:
        self.every, self.keep, self.folder = 60 * every_minutes, keep, Path(folder)
        self.saved_at = 0.0
        self.attempt = 0  # how often the run had been started before
        self.finished = False  # whether the training has come to its end
        self.loaded: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.saved_at = time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["position"] = {
            "validation_due": trainer.validating,
            "finished": self.finished,
            "attempt": self.attempt,
            "limits": _limits(trainer),
            "group": _group(trainer),
            "grouped": not pl_module.automatic_optimization,
            "callback_metrics": {k: torch.as_tensor(v) for k, v in trainer.callback_metrics.items()},
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.loaded = checkpoint.get("position")
        if self.loaded and self.loaded["finished"] and self.loaded["limits"] == _limits(trainer):
            trainer.should_stop = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_at = time.monotonic()
        if self.loaded is None:
            return
        trainer._logger_connector._callback_metrics.update(self.loaded["callback_metrics"])
        if not self.loaded["finished"]:
            restore_loops(trainer, validation_due=self.loaded["validation_due"])
        self.loaded = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches or (batch_idx == 0 and trainer.global_step == 0):
            return
        if self._agree(trainer, batch_idx, time.monotonic() - self.saved_at >= self.every):
            self.save(trainer)

    def _agree(self, trainer: Trainer, batch_idx: int, wish: bool) -> bool:
        """What any of the ranks wishes; they ask each other every `APART` batches."""
        if trainer.world_size == 1:
            return wish
        if (batch_idx // trainer.accumulate_grad_batches) % APART:
            return False
        return bool(trainer.strategy.reduce_boolean_decision(wish, all=False))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.finished = True
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save the state of this moment.

        Raises:
            DivergedError: when it holds what is not a number.
        """
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, TrainingLoss):
                each.settle(trainer)
        require_finite_weights(trainer, trainer.lightning_module)
        stage = "-end" if self.finished else "-validation" if trainer.validating else ""
        path = self.folder / f"step-{trainer.global_step:08d}{stage}.ckpt"
        older = [file for file in checkpoint_files.points(self.folder) if file != path]
        trainer.save_checkpoint(path, weights_only=False)
        saving: Any = trainer.strategy.checkpoint_io
        if trainer.is_global_zero:
            for file in older[self.keep - 1 :]:
                saving.remove_checkpoint(file)
            saving.point_to(path, self.folder.parent / "checkpoints" / LAST)
        self.saved_at = time.monotonic()


def save_state(trainer: Trainer) -> None:
    """Save the state of this moment, where the run keeps states to go on from."""
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, ResumeStates):
            each.save(trainer)
            trainer.strategy.checkpoint_io.teardown()  # all is written when this returns


def _group(trainer: Trainer) -> int:
    """How many batches come as one."""
    return int(getattr(trainer.lightning_module, "batches_per_call", 1))


def _limits(trainer: Trainer) -> list[int | None]:
    timers = [each for each in trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
    seconds = [left + each.time_elapsed() for each in timers if (left := each.time_remaining()) is not None]
    return [trainer.max_epochs, trainer.max_steps, *(round(each) for each in seconds)]


def restore_loops(trainer: Trainer, *, validation_due: bool) -> None:
    """Put Lightning's loops where they were at the start of a batch, or before the validation that comes next.

    Its own way back (2.6) leaves out the validation after a last batch, the scheduler's step at the end of the epoch
    in which it restarts, and where the loader was.
    """
    fit: Any = trainer.fit_loop
    epoch: Any = fit.epoch_loop
    batches, validation = epoch.batch_progress, epoch.val_loop
    done = batches.current.completed
    batches.is_last_batch &= validation_due  # at the start of a batch it is said of that one
    batches.current.reset_on_restart()
    batches.total.reset_on_restart()
    fit._restarting = False  # else the plateau's step at the end of this epoch is left out
    epoch._restart_stage = "none"
    if not epoch._should_accumulate():
        epoch._batches_that_stepped -= 1  # which the loop will add
    validation.restarting = False
    validation._restart_stage = "restarted_mid_evaluation" if validation_due else "none"
    for loader in fit._combined_loader.flattened:
        if hasattr(loader, "begin"):
            loader.begin = done
    iter(fit._data_fetcher)  # instead of the iterator made before the position was known
