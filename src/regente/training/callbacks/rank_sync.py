"""What several ranks exchange besides gradients: less than by default."""

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric.utilities.data import has_iterable_dataset
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from regente.errors import first_of
from regente.training.lightning_internals import disable_sigterm_broadcast, means_of_one_rank
from regente.training.ranks.strategies import repeated


class RankSync(Callback):
    """Removes two broadcasts from each training step: Lightning's about SIGTERM, and DDP's of the buffers.

    StopOnSignal takes the place of the first, with fewer exchanges. DDP would broadcast the buffers of rank 0 before
    each forward pass; ranks/strategies.py switches that off. Here they are broadcast before each validation, with the
    same results: only the buffers of rank 0 count, and rank 0 uses its own until then.

    `warn` is told once which numbers are not those of one process with all samples.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn, self.told = warn, set[str]()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        disable_sigterm_broadcast(trainer)
        self._tell_streams("train", trainer.train_dataloader)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell_means(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell_loaders("test", trainer.test_dataloaders)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell_means(trainer)

    def _tell_means(self, trainer: Trainer) -> None:
        if names := [name for name in means_of_one_rank(trainer) if name not in self.told]:
            self.told.update(names)
            what = "logged without sync_dist=True, so they are means over the samples of rank 0 alone"
            self.warn(f"{first_of(names)}: {what}")

    def _tell_loaders(self, split: str, loaders: Any) -> None:
        number = sum(map(repeated, loaders if isinstance(loaders, list | tuple) else [loaders]))
        if number and (key := f"{split} twice") not in self.told:
            self.told.add(key)
            self.warn(f"{split}: counted twice, for as many batches on each rank: {number} of the samples")
        self._tell_streams(split, loaders)

    def _tell_streams(self, split: str, loaders: Any) -> None:
        each = loaders if isinstance(loaders, list | tuple) else [loaders]
        if (
            any(isinstance(one, DataLoader) and has_iterable_dataset(one) for one in each)
            and split not in self.told
        ):
            self.told.add(split)
            what = "an IterableDataset is read whole by every rank, unless it takes a share by its rank"
            self.warn(f"{split}: {what}; torch.distributed.get_rank() says which one")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell_loaders("val", trainer.val_dataloaders)
        for buffer in pl_module.buffers():
            # counts and masks are the same on all ranks, and gloo cannot send bool
            if buffer.is_floating_point():
                torch.distributed.broadcast(buffer, 0)
