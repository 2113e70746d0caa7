"""Learning rates that change outside of a schedule, in the optimizer and in what its schedules keep of them."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

GROUP_RATES = (
    "lr",
    "initial_lr",
    "max_lr",
    "min_lr",
)  # in a parameter group; schedules add all but the first


def scale_rates(optimizers: Iterable[Optimizer], schedules: Iterable[Any], factor: float) -> None:
    """Multiply all learning rates, also in the middle of a schedule."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group |= {key: group[key] * factor for key in GROUP_RATES if key in group}
    for schedule in schedules:
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]


def add_group(
    optimizer: Optimizer, schedules: Iterable[Any], parameters: list[nn.Parameter], factor: float
) -> None:
    """Train more parameters, at `factor` times the learning rate of the first group, under the same schedules."""
    group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    group |= {key: group[key] * factor for key in GROUP_RATES if key in group}
    optimizer.add_param_group({**group, "params": parameters})
    for schedule in schedules:
        for name in ("base_lrs", "min_lrs"):  # one rate for each group
            if rates := getattr(schedule, name, None):
                rates.append(rates[0] * factor)
