"""States from which a run is resumed as if it had never stopped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Timer

from regente.errors import first_of
from regente.jobs import checkpoint_files
from regente.training.callbacks.training_loss import TrainingLoss, require_finite_weights
from regente.training.checkpoints.held_state import HeldState
from regente.training.grouped_steps import steps_of
from regente.training.lightning_internals import restore_callback_metrics, restore_loops

LAST = "last.ckpt"  # beside the best weights: a link to the newest state
BATCHES_BETWEEN_DECISIONS = 16  # of several ranks, which decide together


class ResumeStates(Callback):
    """Saves the state in `folder` every `every_minutes`, and at the end; keeps the newest `keep`.

    A state is saved at the start of a batch, when no gradients are accumulated: Lightning's loops can be restored
    exactly only there. A run that is stopped in a validation saves a state that starts with the whole validation.
    """

    def __init__(
        self, every_minutes: Annotated[float, Ge(0)] = 3, keep: Annotated[int, Ge(1)] = 2, folder: str = ""
    ) -> None:
        self.every, self.keep, self.folder = 60 * every_minutes, keep, Path(folder)
        self.saved_at = 0.0
        self.warn: Callable[[str], None] = lambda text: None  # where notes to the user go
        self.finished = False  # whether the training is complete
        self.loaded: dict[str, Any] | None = None  # `position` of the state that the run is resumed from
        self.held: HeldState | None = None  # from the start of the training on
        self.states: list[Any] = []  # what each rank holds, of the state that is being saved or was loaded
        self.before_validation: dict[str, Any] | None = None  # what this rank held when the validation began

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.saved_at = time.monotonic()
        self.held = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["position"] = {
            "validation_due": trainer.validating,
            "finished": self.finished,
            "limits": _limits(trainer),
            "grouped_steps": steps.size if (steps := steps_of(pl_module)) else None,
            "callback_metrics": {k: torch.as_tensor(v) for k, v in trainer.callback_metrics.items()},
        }
        checkpoint["held"] = self.states

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.loaded, self.states = checkpoint.get("position"), checkpoint.get("held", [])
        if self.loaded and self.loaded["finished"] and self.loaded["limits"] == _limits(trainer):
            trainer.should_stop = True

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.held = HeldState(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_at = time.monotonic()
        self.held = self.held or HeldState(trainer, pl_module)
        if self.loaded is None:
            return
        restore_callback_metrics(trainer, self.loaded["callback_metrics"])
        if not self.loaded["finished"]:
            restore_loops(trainer, validation_due=self.loaded["validation_due"])
        self.loaded = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore_held(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.held is not None and not trainer.sanity_checking:
            self._restore_held(trainer)
            self.before_validation = self.held.state()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before_validation = None

    def _restore_held(self, trainer: Trainer) -> None:
        """Give back what this rank held, once: after the task's own `on_train_start`, which may reset its metrics."""
        states, self.states = self.states, []
        if not states or self.held is None:
            return
        missing = ["all of it, as the number of ranks has changed"]
        if len(states) == trainer.world_size:
            missing = self.held.restore(states[trainer.global_rank])
        if missing:
            self.warn(f"not in the saved state, so it starts anew: {first_of(missing)}")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._restore_held(trainer)
        if batch_idx % trainer.accumulate_grad_batches or (batch_idx == 0 and trainer.global_step == 0):
            return
        if self._decide(trainer, batch_idx, time.monotonic() - self.saved_at >= self.every):
            self.save(trainer)

    def _decide(self, trainer: Trainer, batch_idx: int, due: bool) -> bool:
        """Whether a state is due on any rank."""
        if trainer.world_size == 1:
            return due
        if (batch_idx // trainer.accumulate_grad_batches) % BATCHES_BETWEEN_DECISIONS:
            return False
        return bool(trainer.strategy.reduce_boolean_decision(due, all=False))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.finished = True
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save the current state.

        Raises:
            DivergedError: when a loss or a weight is not finite.
        """
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, TrainingLoss):
                each.require_finite(trainer)
        require_finite_weights(trainer, trainer.lightning_module)
        stage = "-end" if self.finished else "-validation" if trainer.validating else ""
        path = self.folder / f"step-{trainer.global_step:08d}{stage}.ckpt"
        older = [file for file in checkpoint_files.resume_states(self.folder) if file != path]
        assert self.held is not None
        held = self.before_validation if trainer.validating else self.held.state()
        self.states = [held] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(self.states, move_data_to_device(held, "cpu"))
        trainer.save_checkpoint(path, weights_only=False)
        self.states = []
        saving: Any = trainer.strategy.checkpoint_io
        if trainer.is_global_zero:
            for file in older[self.keep - 1 :]:
                saving.remove_checkpoint(file)
            saving.link(self.folder.parent / "checkpoints" / LAST, path)
        self.saved_at = time.monotonic()


def save_state(trainer: Trainer) -> None:
    """Save the current state, if the run has ResumeStates; on return it is on the disk."""
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, ResumeStates):
            each.save(trainer)
            trainer.strategy.checkpoint_io.teardown()


def _limits(trainer: Trainer) -> list[int | None]:
    timers = [each for each in trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
    seconds = [left + each.time_elapsed() for each in timers if (left := each.time_remaining()) is not None]
    return [trainer.max_epochs, trainer.max_steps, *(round(each) for each in seconds)]
