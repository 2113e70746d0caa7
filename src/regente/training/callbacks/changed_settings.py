"""Settings of optimizers, schedules and losses that change when a run is resumed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from regente.training.checkpoints.initialization import loss_buffers
from regente.training.checkpoints.saving import NOT_PLAIN, plain_value
from regente.training.learning_rates import GROUP_RATES, each_of, scale_rates

# of a schedule: where it stands, and what `scale_rates` changes
POSITIONS = {"base_lrs", "_last_lr", "last_epoch", "_step_count"}


class ChangedSettings(Callback):
    """Changes settings after a state is loaded, which restored the old ones.

    A state has what optimizers, schedules and losses were made with. Where those of this process are made with something
    else, the config has changed, whatever part of it says so. `rate`: a further factor of all learning rates.
    """

    def __init__(self, rate: float = 1.0) -> None:
        self.rate = rate
        self.made: dict[str, Any] = {"groups": [], "schedules": [], "losses": {}}
        self.before: dict[str, Any] | None = None  # of the state that was loaded

    def state_dict(self) -> dict[str, Any]:
        return self.made

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.made["losses"] = {name: each.clone() for name, each in loss_buffers(pl_module)}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # they are made, and their states are loaded next
        self.see(trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.apply(trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs])
        before = (self.before or self.made)["losses"]
        for name, buffer in loss_buffers(pl_module):
            made = self.made["losses"][name]
            if name in before and not before[name].equal(made):
                buffer.copy_(made)

    def see(self, optimizers: Sequence[Optimizer], schedules: Sequence[LRScheduler]) -> None:
        """Keep what they are made with."""
        self.made["groups"] = [[_plain(group) for group in each.param_groups] for each in optimizers]
        self.made["schedules"] = [_plain(vars(each)) for each in each_of(schedules)]

    def apply(self, optimizers: Sequence[Optimizer], schedules: Sequence[LRScheduler]) -> None:
        """Give them what they are made with now and were not made with before."""
        before, made = self.before or self.made, self.made
        factors: dict[int, float] = {}  # by the id of the group
        for optimizer, olds, news in zip(optimizers, before["groups"], made["groups"], strict=False):
            for number, group in enumerate(optimizer.param_groups):
                # groups that were added in the training follow the first one
                which = number if number < min(len(olds), len(news)) else 0
                factors[id(group)] = self._change_group(group, olds[which], news[which])
        scale_rates(optimizers, schedules, lambda group: factors.get(id(group), self.rate))
        for schedule, old, new in zip(
            each_of(schedules), before["schedules"], made["schedules"], strict=False
        ):
            for key in _changed(old, new) - POSITIONS:
                now = getattr(schedule, key)
                rest = now[len(new[key]) :] if isinstance(now, list) else []  # of groups that were added
                setattr(schedule, key, new[key] + rest if rest else _like(now, new[key]))

    def _change_group(self, group: dict[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> float:
        """Change all but learning rates; returns the factor of these."""
        for key in _changed(old, new) - {*GROUP_RATES, "name"}:
            group[key] = new[key]
        rate, start = (each.get("initial_lr", each.get("lr", 1.0)) for each in (old, new))
        if rate == start:
            return self.rate
        if rate == 0:  # no factor leads from it
            group |= {key: start for key in ("lr", "initial_lr") if group.get(key) == 0}
            return self.rate
        return self.rate * float(start / rate)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can be compared and saved: numbers, texts and containers of them."""
    found = {
        key: plain_value(apply_to_collection(each, (Tensor, np.ndarray), lambda rows: rows.tolist()))
        for key, each in values.items()
        if key != "params"
    }
    return {key: each for key, each in found.items() if each is not NOT_PLAIN}


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    return {key for key, value in new.items() if old.get(key) != value}


def _like(now: Any, value: Any) -> Any:
    """A value in the class of the one it replaces, such as the Counter of milestones."""
    return type(now)(value) if isinstance(now, dict) else value
