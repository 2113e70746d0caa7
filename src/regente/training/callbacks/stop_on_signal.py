"""What happens on Ctrl-C and other signals during a training or a test."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch.utils.data import DataLoader, DistributedSampler

from regente.data.core.batches import Batches
from regente.errors import Stopped
from regente.jobs.signals import SIGNALS, confirm_interrupt
from regente.training.lightning_internals import is_accumulating
from regente.training.ranks.consensus import Consensus
from regente.training.ranks.strategies import sampler_of

LIBRARIES = ("regente.", "pytorch_lightning.")  # whose hooks exchange no weights, but those for averages


class StopOnSignal(Callback):
    """Ends training, validation and test at the start of a batch, the same on all ranks, when one gets a signal.

    In a training or its validation all ranks call `save` first. A second signal ends the process at once. These
    handlers replace Lightning's for SIGTERM, which waits for the other ranks.
    """

    def __init__(self, save: Callable[[Trainer], None] | None = None) -> None:
        self.save = save
        self.consensus = Consensus()
        self.received = 0  # the number of the signal, or 0
        self.exchanges_weights = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._stop_if_signalled(trainer, self.save)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # accumulated gradients are in no state: the training stops at its next step
        if is_accumulating(trainer) or self.exchanges_weights:
            return
        if _on_every_rank(trainer, trainer.val_dataloaders, batch_idx):
            self._stop_if_signalled(trainer, self.save)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if _on_every_rank(trainer, trainer.test_dataloaders, batch_idx):
            self._stop_if_signalled(trainer, None)

    def _stop_if_signalled(self, trainer: Trainer, save: Callable[[Trainer], None] | None) -> None:
        if number := self.consensus.largest(trainer, self.received):
            if save is not None:
                save(trainer)
            raise Stopped(number, agreed=trainer.world_size > 1)

    def _begin(self, trainer: Trainer, task: LightningModule) -> None:
        self.exchanges_weights = may_exchange_weights(trainer, task)
        self.consensus = Consensus()  # at the same call on all ranks, also where a training is built again
        for each in SIGNALS:
            signal.signal(each, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number
        confirm_interrupt(number)


def may_exchange_weights(trainer: Trainer, task: LightningModule) -> bool:
    """Whether a user's hook may have put other weights in place for the validation, such as moving averages.

    A state that is saved with them would go on with them.
    """
    parts = [(each, Callback) for each in trainer.callbacks]  # type: ignore[attr-defined]
    return any(
        (hook := getattr(type(part), name)) is not getattr(base, name)
        and (isinstance(part, WeightAveraging) or not hook.__module__.startswith(LIBRARIES))
        for part, base in [*parts, (task, LightningModule)]
        for name in ("on_validation_start", "on_validation_epoch_start")
    )


def _on_every_rank(trainer: Trainer, loader: Any, batch_idx: int) -> bool:
    """Whether every rank is known to have a batch of this number.

    In an evaluation some ranks may have more batches than others. A loader that does not say how many all have is
    not interrupted: training stops after it.
    """
    if trainer.world_size == 1 or isinstance(loader, Batches):
        return True
    sampler = sampler_of(loader)
    if not isinstance(loader, DataLoader) or not isinstance(sampler, DistributedSampler):
        return False
    least: int = len(sampler.dataset) // sampler.num_replicas  # type: ignore[arg-type]
    return loader.batch_size is not None and batch_idx < least // loader.batch_size
