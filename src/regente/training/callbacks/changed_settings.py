"""Settings of the optimizer and its schedule that change when a run is resumed."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from regente.training.learning_rates import group_name, scale_rates


class ChangedSettings(Callback):
    """Changes settings after the state is loaded, which restored the old ones.

    `settings`: new values by `scheduler.KEY`, `optimizer.KEY` or, of a parameter group, `optimizer.groups.NAME.KEY`;
    `rate`: the factor of all learning rates, `rates`: that of named groups; `groups`: the config of the groups.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        rate: float = 1.0,
        rates: Mapping[str, float] | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.settings, self.rate = settings, rate
        self.rates, self.groups = rates or {}, groups or {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.apply(trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs])

    def apply(self, optimizers: Sequence[Optimizer], schedules: Sequence[Any]) -> None:
        """Change optimizers and their schedules."""
        scale_rates(optimizers, schedules, self.rate, self.rates)
        for name, value in self.settings.items():
            part, _, key = name.partition(".")
            if part == "scheduler":
                for schedule in schedules:
                    if hasattr(schedule, key):
                        setattr(schedule, key, value)
            else:
                for group in (group for each in optimizers for group in each.param_groups):
                    self._set(group, key, value)

    def _set(self, group: dict[str, Any], key: str, value: Any) -> None:
        name = group_name(group)
        if key.startswith("groups."):
            if key.startswith(f"groups.{name}."):
                group[key.rpartition(".")[2]] = value
        elif key in group and key not in self.groups.get(name, {}):
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
        settings["optimizer.lr"], old, new = new, 1.0, 1.0
    groups = config["optimizer"].get("groups") or {}
    rates = {}
    for name, group in groups.items():
        rates[name] = rate * (1.0 if "lr" in group else new / old)
        for key, value in group.items():
            where = f"optimizer.groups.{name}.{key}"
            if where in changes and key in ("lr", "lr_factor"):
                before, now = (float(each) for each in changes[where])
                rates[name] *= now / before
            elif where in changes:
                settings[where] = value
    return ChangedSettings(settings, rate * new / old, rates, groups)
