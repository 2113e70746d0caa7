"""Fine-tuning: a frozen backbone that is trained from a given epoch on."""

from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from regente.data.protocols import SupportsFeatures
from regente.errors import ConfigError, Problem
from regente.models.backbone_with_head import BackboneWithHead
from regente.training.grouped_steps import steps_of
from regente.training.learning_rates import add_group
from regente.training.lightning_internals import reload_loaders_each_epoch


class Unfreeze(Callback):
    """From `epoch` on (counted from 0), the last `stages` of the backbone of a `Transfer` are trained, all where null.

    The last stage gets `factor` times the learning rate of the head, each stage before it `decay` times the rate of the
    next one. Schedules apply to all of them. From then on images go through the backbone, and cached features are not
    used. Several of these callbacks, at different epochs, unfreeze step by step.
    """

    def __init__(
        self,
        epoch: Annotated[int, Ge(0)],
        stages: Annotated[int, Ge(1)] | None = 1,
        factor: Annotated[float, Gt(0)] = 0.1,
        decay: Annotated[float, Interval(gt=0, le=1)] = 1.0,
    ) -> None:
        self.epoch, self.stages, self.factor, self.decay = epoch, stages, factor, decay
        self.done = False
        self.due = epoch == 0  # whether that epoch was reached before this process started
        self.unfrozen: list[nn.Parameter] = []

    @property
    def state_key(self) -> str:
        return f"Unfreeze(epoch={self.epoch}, stages={self.stages})"

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = bool(state_dict["done"])

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.due = checkpoint["epoch"] >= self.epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        model = pl_module.model
        if not isinstance(model, BackboneWithHead) or not model.frozen:
            what = "has no frozen backbone; model=transfer would be right, with model.frozen=true"
            raise ConfigError([Problem("callbacks.unfreeze", f"{type(model).__name__} {what}")])
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            what = f"{type(trainer.strategy).__name__} shards the parameters at the start; use trainer.strategy=ddp"
            raise ConfigError([Problem("callbacks.unfreeze", what)])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.done:  # the optimizer's state is loaded next, and has these groups
            self._unfreeze(trainer, pl_module)
        elif self.due:
            _leave_features(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 == self.epoch:
            _leave_features(trainer, pl_module)
            reload_loaders_each_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.done and trainer.current_epoch >= self.epoch:
            self._unfreeze(trainer, pl_module)
            self.done = True

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:  # DistributedDataParallel reduces only what was trainable when it started
            for parameter in self.unfrozen:
                if parameter.grad is not None:
                    parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")

    def _unfreeze(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _leave_features(trainer, pl_module)
        model: Any = pl_module.model
        (optimizer,) = trainer.optimizers
        for number, parameters in enumerate(model.unfreeze(self.stages)):
            if parameters:
                schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
                add_group(optimizer, schedules, parameters, self.factor * self.decay**number)
                self.unfrozen += parameters


def _leave_features(trainer: Trainer, pl_module: LightningModule) -> None:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, SupportsFeatures):
        data.use_features(None)
    if steps := steps_of(pl_module):
        steps.size = 1  # a step through the backbone is too slow to group
