"""Settings of the optimizer and its schedule that change when a run is resumed."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from regente.training.learning_rates import group_name, replace_zero_rates, scale_rates


class ChangedSettings(Callback):
    """Changes settings after the state is loaded, which restored the old ones.

    `settings`: new values by `scheduler.KEY`, `optimizer.KEY` or, of a parameter group, `optimizer.groups.NAME.KEY`;
    `rate`: the factor of all learning rates, `rates`: that of named groups; `groups`: the config of the groups;
    `from_zero`: new rates of named groups, and by "" of the others, where the old ones are zero.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        rate: float = 1.0,
        rates: Mapping[str, float] | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        from_zero: Mapping[str, float] | None = None,
    ) -> None:
        self.settings, self.rate = settings, rate
        self.rates, self.groups, self.from_zero = rates or {}, groups or {}, from_zero or {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.apply(trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs])

    def apply(self, optimizers: Sequence[Optimizer], schedules: Sequence[Any]) -> None:
        """Change optimizers and their schedules."""
        scale_rates(optimizers, schedules, self.rate, self.rates)
        replace_zero_rates(optimizers, schedules, self._from_zero)
        for name, value in self.settings.items():
            part, _, key = name.partition(".")
            if part == "scheduler":
                for schedule in schedules:
                    if hasattr(schedule, key):
                        setattr(schedule, key, value)
            else:
                for group in (group for each in optimizers for group in each.param_groups):
                    self._set(group, key, value)

    def _from_zero(self, group: dict[str, Any]) -> float:
        name = group_name(group)
        if name in self.from_zero:
            return self.from_zero[name]
        return (
            0.0 if "lr" in self.groups.get(name, {}) else self.from_zero.get("", 0.0) * group.get("factor", 1)
        )

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
    from_zero = {}
    if old == 0:
        from_zero[""], old, new = rate * new, 1.0, 1.0
    groups = config["optimizer"].get("groups") or {}
    rates = {}
    for name, group in groups.items():
        rates[name] = rate * (1.0 if "lr" in group else new / old)
        for key, value in group.items():
            where = f"optimizer.groups.{name}.{key}"
            if where in changes and key in ("lr", "lr_factor"):
                before, now = (float(each) for each in changes[where])
                if before:
                    rates[name] *= now / before
                else:
                    from_zero[name] = rate * now * (1.0 if key == "lr" else config["optimizer"]["lr"])
            elif where in changes:
                settings[where] = value
    return ChangedSettings(settings, rate * new / old, rates, groups, from_zero)
