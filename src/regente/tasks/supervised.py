"""What learning from labelled batches has in common, whatever the loss."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from regente.errors import ConfigError, Problem

Batch = tuple[Tensor, Tensor]


class Supervised(LightningModule):
    """Batches (x, y) through a model; a subclass says the loss in `training_step` and adds up in `_count`.

    `optimizer` is called with the parameters that want a gradient, `scheduler` with the optimizer.
    """

    means: ClassVar[tuple[str, ...]]  # what `totals` holds sums of; its last entry is the number of terms

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None,
        monitor: str,
    ) -> None:
        super().__init__()
        self.model = model
        self.make_optimizer, self.make_scheduler, self.monitor = optimizer, scheduler, monitor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""

    @abstractmethod
    def _count(self, batch: Batch) -> dict[str, Tensor]:
        """Add a batch to `totals`; label, prediction and loss of each answer."""

    def on_validation_epoch_start(self) -> None:
        self._clear()

    def on_test_epoch_start(self) -> None:
        self._clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._count(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Label, prediction and loss of each answer, for the figures."""
        return self._count(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def _clear(self) -> None:
        # on the device, so that no batch waits for the host
        self.totals = torch.zeros(len(self.means) + 1, dtype=torch.float64, device=self.device)

    def _log_means(self, stage: str) -> None:
        totals: Any = self.trainer.strategy.reduce(self.totals, reduce_op="sum")
        *sums, number = totals.tolist()
        means = {name: total / number for name, total in zip(self.means, sums, strict=True)}
        self.log_dict({f"{stage}/{name}": value for name, value in self.measures(means).items()})

    def measures(self, means: dict[str, float]) -> dict[str, float]:
        """What is logged of a split, made of its means."""
        return means

    def configure_optimizers(self) -> Any:
        """Lightning's dict; a schedule that counts steps is told how many there will be."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        if not parameters:
            raise ConfigError([Problem("model", "has no parameter to train; every one is frozen")])
        optimizer = self.make_optimizer(parameters)
        if self.make_scheduler is None:
            return optimizer
        kind = getattr(self.make_scheduler, "func", self.make_scheduler)
        if kind is OneCycleLR:
            schedule: Any = self.make_scheduler(
                optimizer, total_steps=int(self.trainer.estimated_stepping_batches)
            )
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        return [optimizer], [{"scheduler": self.make_scheduler(optimizer), "monitor": self.monitor}]
