"""What learning from labelled batches has in common, whatever the loss."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from regente.data.core.seeding import STEP, reseed
from regente.errors import ConfigError, Problem
from regente.tasks.lightning_internals import optimizer_step_counter

Batch = tuple[Tensor, Tensor]


class Supervised(LightningModule):
    """Batches (x, y) through a model; a subclass says the loss in `training_step` and adds up in `_count`.

    `optimizer` is called with the parameters that want a gradient, `scheduler` with the optimizer. `steps_per_call`:
    see `group`; auto is as many as take a tenth of a second, where nothing wants to see each step.
    """

    means: ClassVar[tuple[str, ...]]  # what `totals` holds sums of; its last entry is the number of terms

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None,
        monitor: str,
        steps_per_call: Annotated[int, Ge(1)] | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        self.steps_per_call = steps_per_call
        self.model = model
        self.make_optimizer, self.make_scheduler, self.monitor = optimizer, scheduler, monitor

    def configure_model(self) -> None:
        """With trainer.strategy=fsdp: the parameters of each layer, and what is left, are shared out."""
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
        """The loss of a batch, which a training step makes smaller."""

    def group(self, batch_size: int, steps: int, seed: int) -> None:
        """Take several optimizer steps in each `training_step`, one for each `batch_size` samples.

        What Lightning does around a `training_step` takes longer than the step of a small model. The weights
        come out the same to the bit; `global_step` counts steps as always. `steps` is how many a call takes; each
        draws by (seed, epoch, batch), as StepSeeding has it.
        """
        self.automatic_optimization, self.batch_size = False, batch_size
        self.grouped, self.seed = steps, seed

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Any]:
        """The loss of a batch; of a group of them the last one, and `losses` [n] and learning rates of all."""
        return self.loss(batch) if self.automatic_optimization else self._steps(batch, batch_idx)

    def _steps(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        # not Lightning's wrapper, whose step asks every callback twice: a group is taken only where none wants to know
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        counted = optimizer_step_counter(self.trainer)
        scheduler = self._scheduler("step")
        losses, rates = [], []
        number, epoch, rank = batch_idx * self.grouped, self.trainer.current_epoch, self.trainer.global_rank
        for x, y in zip(*(torch.split(part, self.batch_size) for part in batch), strict=True):
            reseed(self.device, self.seed, epoch, number, rank, STEP)
            number += 1
            loss = self.loss((x, y))
            optimizer.zero_grad()
            self.trainer.strategy.pre_backward(loss)  # several ranks: gradients travel while backward runs
            # not manual_backward, which calls hooks and scales: a group is taken only where nothing needs that
            loss.backward()  # type: ignore[no-untyped-call]
            counted.increment_ready()
            optimizer.step()
            counted.increment_completed()
            torch.clear_autocast_cache()  # which holds the weights as they were before the step
            if scheduler is not None:
                scheduler.step()
            losses.append(loss.detach())
            rates.append(optimizer.param_groups[0]["lr"])
        if self.trainer.is_last_batch and (scheduler := self._scheduler("epoch")) is not None:
            scheduler.step()
            rates[-1] = optimizer.param_groups[0]["lr"]
        return {"loss": losses[-1], "losses": torch.stack(losses), "rates": rates}

    def _scheduler(self, interval: str) -> Any:
        """The scheduler that steps at this interval, if there is one."""
        configs = self.trainer.lr_scheduler_configs
        return configs[0].scheduler if configs and configs[0].interval == interval else None

    @abstractmethod
    def _count(self, batch: Batch) -> dict[str, Tensor]:
        """Add a batch to `totals`; label, prediction and loss of each answer."""

    def on_validation_epoch_start(self) -> None:
        self._clear()

    def on_test_epoch_start(self) -> None:
        self._clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """As `test_step`."""
        return self._count(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Label, prediction and loss of each answer, for tables and figures."""
        return self._count(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def _clear(self) -> None:
        # on the device, so that no batch waits for the host; Apple's GPU has no float64
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self.totals = torch.zeros(len(self.means) + 1, dtype=dtype, device=self.device)

    def _log_means(self, stage: str) -> None:
        totals: Any = self.trainer.strategy.reduce(self.totals, reduce_op="sum")
        *sums, number = totals.tolist()
        means = {name: total / number for name, total in zip(self.means, sums, strict=True)}
        self.log_measures({f"{stage}/{name}": value for name, value in self.measures(means).items()})

    def log_measures(self, values: dict[str, float]) -> None:
        """Log them at `global_step`; by itself Lightning counts calls of `training_step`."""
        self.log_dict(values, logger=False)
        if self.logger is not None and self.trainer.is_global_zero and not self.trainer.sanity_checking:
            self.logger.log_metrics(values, step=self.global_step)

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
            total: Any = self.trainer.estimated_stepping_batches
            if not self.automatic_optimization:  # it has counted groups
                loader: Any = self.trainer.train_dataloader
                total = (self.trainer.max_epochs or 0) * loader.steps
            schedule: Any = self.make_scheduler(optimizer, total_steps=int(total))
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        # a plateau is of validations: in epochs without one there is nothing to look at
        every = (self.trainer.check_val_every_n_epoch or 1) if kind is ReduceLROnPlateau else 1
        schedule = self.make_scheduler(optimizer)
        return [optimizer], [{"scheduler": schedule, "monitor": self.monitor, "frequency": every}]
