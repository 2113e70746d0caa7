"""Classification."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from regente.errors import ConfigError, Problem

Batch = tuple[Tensor, Tensor]


class Classifier(LightningModule):
    """Cross-entropy and accuracy of a model x -> logits [B, K], or [B, T, K] with labels [B, T].

    `optimizer` is called with the parameters that want a gradient, `scheduler` with the optimizer.
    """

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x).flatten(0, -2), y.flatten())

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
        # sum of losses, correct answers, answers: on the device, so that no batch waits for the host
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)

    def _count(self, batch: Batch) -> dict[str, Tensor]:
        x, y = batch
        logits, y = self(x).flatten(0, -2), y.flatten()
        loss, prediction = F.cross_entropy(logits.float(), y, reduction="none"), logits.argmax(-1)
        self.totals[0] += loss.sum(dtype=torch.float64)
        self.totals[1] += (prediction == y).sum()
        self.totals[2] += y.numel()
        return {"label": y, "prediction": prediction, "loss": loss}

    def _log_means(self, stage: str) -> None:
        totals: Any = self.trainer.strategy.reduce(self.totals, reduce_op="sum")
        loss, correct, number = totals.tolist()
        measures = self.measures(loss / number, correct / number)
        self.log_dict({f"{stage}/{name}": value for name, value in measures.items()})

    def measures(self, loss: float, acc: float) -> dict[str, float]:
        """What is logged of a split, made of its mean loss and accuracy."""
        return {"loss": loss, "acc": acc}

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
