"""Settings of the optimizer and its schedule that change when a run goes on."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # of a parameter group, those of schedules among them


class ChangedSettings(Callback):
    """Puts them in place once the state is loaded, which has the old ones: `settings` by `optimizer.KEY` or
    `scheduler.KEY`; learning rates, also in the middle of a schedule, times `rate`.
    """

    def __init__(self, settings: dict[str, Any], rate: float = 1.0) -> None:
        self.settings, self.rate = settings, rate

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for key in RATES:
                    if key in group and self.rate != 1:
                        group[key] = group[key] * self.rate
                for place, value in self.settings.items():
                    part, _, key = place.partition(".")
                    if part == "optimizer" and key in group:
                        group[key] = value
        for schedule in schedules:
            if hasattr(schedule, "base_lrs"):
                schedule.base_lrs = [each * self.rate for each in schedule.base_lrs]
            for place, value in self.settings.items():
                part, _, key = place.partition(".")
                if part == "scheduler" and hasattr(schedule, key):
                    setattr(schedule, key, value)
        self.settings, self.rate = {}, 1.0  # once


def changed(config: dict[str, Any], changes: dict[str, tuple[str, str]], rate: float) -> ChangedSettings:
    """Those of the config's settings that are among the changes, old and new value by key; `rate` times the rates."""
    settings = {
        key: config[part][name]
        for key in changes
        for part, _, name in [key.partition(".")]
        if part in ("optimizer", "scheduler") and name in config[part] and name != "lr"
    }
    old, new = changes.get("optimizer.lr", ("1", "1"))
    return ChangedSettings(settings, rate * float(new) / float(old))
