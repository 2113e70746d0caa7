"""What a step draws at random."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from regente.data.core.batches import Batches
from regente.data.core.seeded_loader import SeededLoader
from regente.data.core.seeding import STEP, VALIDATION, seed_all


class StepSeeding(Callback):
    """Makes what a training step draws (dropout ...) a function of (seed, epoch, batch, rank), and what a loader of
    the user's draws one of the same key: a run that goes on in the middle needs no random state of the past.

    Where a call takes several steps the task does so for each: see grouped_steps.py.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._wrap(trainer):
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]  # instead of the iterator that it has made

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._wrap(trainer):  # trainer.reload_dataloaders_every_n_epochs has brought new ones
            for each in trainer.fit_loop._combined_loader.flattened:  # type: ignore[union-attr]
                if isinstance(each, SeededLoader):
                    each.set_epoch(trainer.current_epoch)

    def _wrap(self, trainer: Trainer) -> bool:
        """Put loaders of the user's behind keys; whether there were any that are not."""
        combined: Any = trainer.fit_loop._combined_loader
        if all(isinstance(each, Batches | SeededLoader) for each in combined.flattened):
            return False
        combined.flattened = [
            each
            if isinstance(each, Batches | SeededLoader)
            else SeededLoader(each, self.seed, trainer.global_rank)
            for each in combined.flattened
        ]
        return True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.automatic_optimization or not getattr(pl_module, "take_steps", None):
            key = self.seed, trainer.current_epoch, batch_idx, trainer.global_rank, STEP
            seed_all(pl_module.device, *key)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seed_all(pl_module.device, self.seed, trainer.global_step, 0, trainer.global_rank, VALIDATION)
