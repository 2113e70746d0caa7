"""The base of tasks on labelled batches: optimizer, schedule, means over a split."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torchmetrics import Metric
from torchmetrics.wrappers.abstract import WrapperMetric

from regente.data.core.batches import GroupedBatches
from regente.errors import ConfigError, Problem

Batch = tuple[Tensor, Tensor]


def pair(batch: Any) -> Batch:
    """A batch as x and y.

    Raises:
        ConfigError: when it is anything else.
    """
    if (
        isinstance(batch, tuple | list)
        and len(batch) == 2
        and all(isinstance(each, Tensor) for each in batch)
    ):
        return batch[0], batch[1]
    given = type(batch).__name__
    if isinstance(batch, dict):
        given = f"mappings with {', '.join(map(str, batch))}"
    elif isinstance(batch, tuple | list):
        given = f"batches of {', '.join(type(each).__name__ for each in batch)}"
    what = (
        f"gives {given}; this task takes pairs (x, y) of tensors; change the data, or use a task of your own"
    )
    raise ConfigError([Problem("data", what)])


def _keywords(loss: object) -> dict[str, Any]:
    return loss.keywords if isinstance(loss, partial) else {}


class TakesSteps(Protocol):
    """Manual optimization: the optimizer steps of the batches that come as one."""

    size: int  # batches that come as one

    def __call__(self, task: LightningModule, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Take the steps; the last `loss`, and `losses` [n] and learning `rates` of all."""


class Supervised(GroupedBatches, LightningModule):
    """Trains a model on batches (x, y). A subclass defines `loss` and sums its metrics in `count`.

    `optimizer` is called with the parameters that want a gradient, `scheduler` with the optimizer. `loss` is called with
    outputs and targets, and takes the place of the task's own; `metrics` are logged by their names for each split.
    """

    means: ClassVar[tuple[str, ...]]  # what `totals` holds sums of; its last entry is the number of terms

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None,
        monitor: str,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        self.given_loss, self.metric_names = loss, list(metrics or {})
        self.given_metrics = nn.ModuleList((metrics or {}).values())  # reset for each split
        if clash := set(self.metric_names) & set(self.means):
            what = "the task logs this name itself; give it another"
            raise ConfigError([Problem(f"metrics.{name}", what) for name in clash])
        if getattr(loss, "reduction", None) == "sum" or _keywords(loss).get("reduction") == "sum":
            what = "a sum grows with the batch, so val/loss would be no mean over the samples; use mean"
            raise ConfigError([Problem("loss.reduction=sum", what)])
        self._take_steps: TakesSteps | None = None
        self.model = model
        self.make_optimizer, self.make_scheduler, self.monitor = optimizer, scheduler, monitor

    def configure_model(self) -> None:
        """With trainer.strategy=fsdp: shard the parameters of each layer, then those that are left."""
        if self.device_mesh is None:
            return
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if not isinstance(self.model, FSDPModule):
            mesh = self.device_mesh["data_parallel"]
            for layer in self.model.children():
                if next(layer.parameters(), None) is not None:
                    fully_shard(layer, mesh=mesh)
            fully_shard(self.model, mesh=mesh)

    def forward(self, x: Tensor) -> Tensor:
        # in the dtype of the weights, which precision=64 and 16-true change
        if x.is_floating_point() and not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.dtype)  # of precision=16-true, 64; under autocast stored features stay in bfloat16
        return self.model(x)  # type: ignore[no-any-return]

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch: a scalar, which training minimizes."""

    def loss_by(
        self, default: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor
    ) -> Tensor:
        """The loss of outputs, by the configured one or else by `default`."""
        if self.given_loss is None:
            return default(outputs, targets)
        loss = self.given_loss(outputs, targets)
        if loss.numel() != 1:
            what = (
                f"gives {list(loss.shape)} values for a batch, and training minimizes one; use reduction=mean"
            )
            raise ConfigError([Problem("loss", what)])
        return loss

    def count_loss(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch to the mean of the configured loss."""
        terms: Any
        loss = self.given_loss
        if type(loss).__module__ == nn.MSELoss.__module__ and getattr(loss, "reduction", None) == "mean":
            each: Any = copy.copy(loss)
            each.reduction = "none"
            values = each(outputs, targets)
            total, terms = values.sum(dtype=self.totals.dtype), values.numel()
            if isinstance(each, nn.CrossEntropyLoss | nn.NLLLoss):  # without waiting for the device
                counts = targets != each.ignore_index
                terms = (counts if each.weight is None else each.weight[targets * counts] * counts).sum()
        else:  # of the user's own: known for a batch alone
            total, terms = self.loss_by(F.mse_loss, outputs, targets) * len(targets), len(targets)
        self.loss_sums[0] += total
        self.loss_sums[1] += terms

    def update_metrics(self, predictions: Tensor, targets: Tensor) -> None:
        """Hand a batch to the configured metrics; called by `count`."""
        for metric in self.given_metrics:
            metric.update(predictions, targets)  # type: ignore[operator]

    def optimize_by(self, take_steps: TakesSteps) -> None:
        """Leave the optimizer steps of a batch to `take_steps`, several where batches come as one."""
        self._take_steps = take_steps
        self.automatic_optimization = False

    @property
    def taken_steps(self) -> TakesSteps | None:
        """What takes the optimizer steps, if Lightning does not."""
        return self._take_steps

    @property
    def batches_per_call(self) -> int:
        return self._take_steps.size if self._take_steps else 1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Any]:
        """The loss of a batch; of a group of them the last one, and `losses` [n] and learning rates of all."""
        return self._take_steps(self, batch, batch_idx) if self._take_steps else self.loss(batch)

    @abstractmethod
    def count(self, batch: Batch) -> dict[str, Tensor]:
        """Add a batch to `totals`; label, prediction and loss of each answer."""

    def on_validation_epoch_start(self) -> None:
        self._clear()

    def on_test_epoch_start(self) -> None:
        self._clear()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """As `test_step`."""
        self._require_one_loader(dataloader_idx)
        return self.count(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Label, prediction and loss of each answer, for tables and figures."""
        self._require_one_loader(dataloader_idx)
        return self.count(batch)

    def _require_one_loader(self, number: int) -> None:
        if number:
            what = f"gives several loaders for a split, and {type(self).__name__} takes one; join them, or use a task of your own"
            raise ConfigError([Problem("data", what)])

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def _clear(self) -> None:
        # on the device: no batch waits for the host; Apple's GPU has no float64
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self.totals = torch.zeros(len(self.means) + 1, dtype=dtype, device=self.device)
        self.loss_sums = self.totals.new_zeros(2)  # of the configured loss and of its weights
        for metric in self.given_metrics:
            metric.reset()  # type: ignore[operator]

    def _log_means(self, stage: str) -> None:
        totals: Any = self.trainer.strategy.reduce(torch.cat((self.totals, self.loss_sums)), reduce_op="sum")
        *sums, number, loss, weight = totals.tolist()
        means = {name: total / number for name, total in zip(self.means, sums, strict=True)}
        if weight:
            means["loss"] = loss / weight
        found = self.measures(means) | self._metric_values()
        self.log_measures({f"{stage}/{name}": value for name, value in found.items()})

    def _metric_values(self) -> dict[str, float]:
        """The values of the configured metrics, over all ranks; those of a metric with several by their own names."""
        found: dict[str, float] = {}
        called = torch.tensor([float(each.update_called) for each in self.given_metrics], device=self.device)  # type: ignore[arg-type]
        called = self.trainer.strategy.reduce(called, reduce_op="sum")  # a rank may have no samples
        for name, metric, calls in zip(self.metric_names, self.given_metrics, called.tolist(), strict=True):
            if not calls and not isinstance(metric, WrapperMetric):
                what = f"{type(self).__name__}.count does not hand it the batches; call self.update_metrics there"
                raise ConfigError([Problem(f"metrics.{name}", what)])
            values: Any = metric.compute()  # type: ignore[operator]
            named = values if isinstance(values, dict) else {name: values}
            for key, value in named.items():
                if value.numel() != 1:
                    what = f"gives {list(value.shape)} values, and a metric is one number"
                    raise ConfigError([Problem(f"metrics.{name}", what)])
                found[key if key == name else f"{name}/{key}"] = float(value)
        return found

    def log_measures(self, values: dict[str, float]) -> None:
        """Log values at `global_step`; Lightning's own step counts calls of `training_step`."""
        self.log_dict(values, logger=False)
        for logger in (
            self.loggers if self.trainer.is_global_zero and not self.trainer.sanity_checking else ()
        ):
            logger.log_metrics(values, step=self.global_step)

    def measures(self, means: dict[str, float]) -> dict[str, float]:
        """The metrics of a split, from its means."""
        return means

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule for Lightning; OneCycleLR gets the number of steps."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        if not parameters:
            raise ConfigError([Problem("model", "has no parameter to train; every one is frozen")])
        optimizer = self.make_optimizer(parameters)
        if self.make_scheduler is None:
            return optimizer
        make: Any = self.make_scheduler
        kind, interval, every = getattr(make, "func", make), "epoch", 1
        total = {}
        if kind is OneCycleLR:
            interval, total = "step", {"total_steps": self._total_steps()}
        elif kind is ReduceLROnPlateau:  # it looks at validations; an epoch without one has no new value
            every = self.trainer.check_val_every_n_epoch or 1
        schedule = {
            "scheduler": make(optimizer, **total),
            "monitor": self.monitor,
            "interval": getattr(make, "interval", None) or interval,
            "frequency": getattr(make, "frequency", None) or every,
        }
        return [optimizer], [schedule]

    def _total_steps(self) -> int:
        total: float = self.trainer.estimated_stepping_batches
        if self._take_steps:  # Lightning has counted groups
            loader: Any = self.trainer.train_dataloader
            total = (self.trainer.max_epochs or 0) * loader.steps
        if not 0 < total < math.inf:
            what = "OneCycleLR needs the number of steps, which this data does not tell; give trainer.max_steps=N"
            raise ConfigError([Problem("scheduler", what)])
        return int(total)
