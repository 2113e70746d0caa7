"""Settings of the optimizer and its schedule that change when a run is resumed."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from regente.training.learning_rates import scale_rates


class ChangedSettings(Callback):
    """Changes settings after the state is loaded, which restored the old ones.

    `settings`: new values by `optimizer.KEY` or `scheduler.KEY`; `rate`: the factor of all learning rates.
    """

    def __init__(self, settings: dict[str, Any], rate: float = 1.0) -> None:
        self.settings, self.rate = settings, rate

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        scale_rates(trainer.optimizers, schedules, self.rate)
        for name, value in self.settings.items():
            part, _, key = name.partition(".")
            if part == "scheduler":
                for schedule in schedules:
                    if hasattr(schedule, key):
                        setattr(schedule, key, value)
            else:
                for group in (group for each in trainer.optimizers for group in each.param_groups):
                    if key in group:
                        group[key] = value


def changed(config: dict[str, Any], changes: dict[str, tuple[str, str]], rate: float) -> ChangedSettings:
    """The callback for a config and its changes, old and new value by dotted key; `rate`: a further factor."""
    settings = {
        key: config[part][name]
        for key in changes
        for part, _, name in [key.partition(".")]
        if part in ("optimizer", "scheduler") and name in config[part] and name != "lr"
    }
    old, new = (float(each) for each in changes.get("optimizer.lr", ("1", "1")))
    if old == 0:  # no factor leads from it
        return ChangedSettings({**settings, "optimizer.lr": new}, rate)
    return ChangedSettings(settings, rate * new / old)
