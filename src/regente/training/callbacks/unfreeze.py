"""Fine-tuning: a frozen backbone that is trained from some epoch on."""

from typing import Annotated, Any

from annotated_types import Ge, Gt, Interval
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from regente.data.protocols import SupportsFeatures
from regente.errors import ConfigError, Problem
from regente.models.backbone_with_head import BackboneWithHead

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a parameter group, some of them a schedule's
SCHEDULED = ("base_lrs", "min_lrs", "_last_lr")  # what a schedule keeps for each group


class Unfreeze(Callback):
    """From `epoch` on (counted from 0), the last `stages` of the backbone of a `Transfer` are trained, all where null.

    The last stage learns at `factor` times the head's rate, each one before it at `decay` times the rate of the one
    after it; schedules go on for all alike. Stored features are left at that point, and images go through the backbone
    again. Several of these, at different epochs, unfreeze step by step; what is unfrozen already is left alone.
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
        self.due = epoch == 0  # before the first epoch of this process
        self.unfrozen: list[nn.Parameter] = []

    @property
    def state_key(self) -> str:
        return self._generate_state_key(epoch=self.epoch, stages=self.stages)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = bool(state_dict["done"])

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        progress = (
            checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
        )
        self.due = progress.get("completed", 0) >= self.epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        model = pl_module.model
        if not isinstance(model, BackboneWithHead) or not model.frozen:
            what = "has no frozen backbone; model=transfer would be right, with model.frozen=true"
            raise ConfigError([Problem("callbacks.unfreeze", f"{type(model).__name__} {what}")])
        if type(trainer.strategy).__name__ not in ("SingleDeviceStrategy", "DDPStrategy"):
            what = f"{type(trainer.strategy).__name__} shares out parameters at the start; use trainer.strategy=ddp"
            raise ConfigError([Problem("callbacks.unfreeze", what)])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.done:  # the optimizer's state, which comes next, has these groups
            self._unfreeze(trainer, pl_module)
        elif self.due:
            _leave_features(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 == self.epoch:
            _leave_features(trainer, pl_module)
            trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.done and trainer.current_epoch >= self.epoch:
            self._unfreeze(trainer, pl_module)
            self.done = True

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:  # DistributedDataParallel looks after what was trained when it started
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
    task: Any = pl_module
    if getattr(task, "take_steps", None):
        task.take_steps.size = 1  # a step takes longer now than what is around it


def add_group(
    optimizer: Optimizer, schedules: list[Any], parameters: list[nn.Parameter], factor: float
) -> None:
    """Train more parameters, at a multiple of the rate of the first ones, under the same schedules."""
    group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    group |= {key: group[key] * factor for key in RATES if key in group}
    optimizer.add_param_group({**group, "params": parameters})
    for schedule in schedules:
        for name in SCHEDULED:
            rates = getattr(schedule, name, None)
            if isinstance(rates, list) and rates:
                rates.append(rates[0] * factor)
