"""The random numbers of a training step."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from regente.data.core.batches import Batches
from regente.data.core.seeded_loader import SeededLoader
from regente.data.core.seeding import STEP, VALIDATION, seed_all
from regente.training.grouped_steps import steps_of
from regente.training.lightning_internals import (
    replace_training_loaders,
    restart_training_iterator,
    training_loaders,
)


class StepSeeding(Callback):
    """Seeds each training step (dropout ...) by (seed, epoch, batch, rank), and a user's loader by the same key.

    So a run that is resumed in the middle of an epoch needs no random state. Where a call takes several steps, each of
    them is seeded: see grouped_steps.py.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._wrap(trainer):
            restart_training_iterator(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._wrap(trainer):  # the loaders are new, by trainer.reload_dataloaders_every_n_epochs
            for each in training_loaders(trainer):
                if isinstance(each, SeededLoader):
                    each.set_epoch(trainer.current_epoch)

    def _wrap(self, trainer: Trainer) -> bool:
        """Wrap a user's loaders as SeededLoader; whether there were any that were not."""
        loaders = [
            each
            if isinstance(each, Batches | SeededLoader)
            else SeededLoader(each, self.seed, trainer.global_rank)
            for each in training_loaders(trainer)
        ]
        if all(new is old for new, old in zip(loaders, training_loaders(trainer), strict=True)):
            return False
        replace_training_loaders(trainer, loaders)
        return True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if steps_of(pl_module) is None:
            key = self.seed, trainer.current_epoch, batch_idx, trainer.global_rank, STEP
            seed_all(pl_module.device, *key)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed_all(pl_module.device, self.seed, trainer.global_step, 0, trainer.global_rank, VALIDATION)
