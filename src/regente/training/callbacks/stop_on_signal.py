"""Signals while it trains."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning_fabric.utilities.data import sized_len
from pytorch_lightning import Callback, LightningModule, Trainer

from regente.data.core.batches import Batches
from regente.errors import Stopped
from regente.jobs.exit_status import SIGNALS, stopping
from regente.training.ranks.consensus import Agreement, Alone

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class StopOnSignal(Callback):
    """Ends training, validation and test at the start of a batch, the same on all ranks, once one gets a signal.

    `save` is called before, by all of them, where they stop in a training or its validation. A second signal ends the
    process at once. Lightning's own handler of SIGTERM, which would wait for the other ranks, is put out of the way.
    """

    def __init__(self, save: Callable[[Trainer], None] | None = None) -> None:
        self.save = save
        self.agreement: Agreement | Alone | None = None
        self.told = 0
        self.before: dict[signal.Signals, Handler] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._meet(trainer)

    def _meet(self, trainer: Trainer) -> None:
        if self.agreement is None:
            many = trainer.world_size > 1
            self.agreement = Agreement(trainer.global_rank, trainer.world_size) if many else Alone()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._meet(trainer)
        self._listen()

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._place(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return  # gradients that wait for others are in no state; the next step is soon enough
        if self._everyone_comes(trainer.val_dataloaders, batch_idx):
            self._place(trainer)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._everyone_comes(trainer.test_dataloaders, batch_idx):
            self._place(trainer, saving=False)

    def _everyone_comes(self, loaders: Any, batch_idx: int) -> bool:
        """Whether every rank has a batch of this number; one that is alone stops anywhere."""
        return isinstance(self.agreement, Alone) or batch_idx < batches_of_all(loaders)

    def _place(self, trainer: Trainer, *, saving: bool = True) -> None:
        assert self.agreement is not None
        if number := self.agreement.here(self.told):
            if self.save is not None and saving:
                self.save(trainer)
            raise Stopped(number, agreed=trainer.world_size > 1)

    def _listen(self) -> None:
        for each in SIGNALS:
            signal.signal(each, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.told:
            os._exit(128 + number)
        self.told = number
        stopping(number)


def batches_of_all(loader: Any) -> int:
    """How many batches every rank has of an evaluation; the last one may be missing on some."""
    if isinstance(loader, Batches):
        return loader.on_every_rank
    if isinstance(loader, list | tuple | dict):
        return 0
    return sized_len(loader) or 0
