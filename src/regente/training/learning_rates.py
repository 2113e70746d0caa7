"""Learning rates that change outside of a schedule, in the optimizer and in what its schedules keep of them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

GROUP_RATES = (
    "lr",
    "initial_lr",
    "max_lr",
    "min_lr",
)  # in a parameter group; schedules add all but the first


class Schedule(partial[Any]):
    """What makes a schedule for an optimizer, and the schedules that it is a chain of; `interval`: step or epoch."""

    interval: str | None = None
    frequency: int | None = None

    def __call__(self, /, optimizer: Optimizer, **more: Any) -> Any:
        inner = {name: _bound(value, optimizer) for name, value in self.keywords.items() if _is_chain(value)}
        if inner:  # in a chain of torch's the optimizer is not always the first argument
            return self.func(**{**self.keywords, **inner, **more, "optimizer": optimizer})
        return super().__call__(optimizer, **{**self._rates(optimizer), **more})

    def _rates(self, optimizer: Optimizer) -> dict[str, list[float]]:
        """The rates that torch would give to all parameter groups, times the factors of these groups."""
        factors = [group.get("factor", 1.0) for group in optimizer.param_groups]
        rates = (
            {key: self.keywords.get(key) for key in ("max_lr", "base_lr")} if set(factors) != {1.0} else {}
        )
        return {
            key: [rate * factor for factor in factors]
            for key, rate in rates.items()
            if isinstance(rate, int | float)
        }


def _is_chain(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, partial) for each in value)


def _bound(chain: list[Any], optimizer: Optimizer) -> list[Any]:
    return [
        Schedule(each.func, *each.args, **each.keywords)(optimizer) if isinstance(each, partial) else each
        for each in chain
    ]


def each_of(schedules: Iterable[Any]) -> Iterator[Any]:
    """All schedules, with those of chains such as SequentialLR."""
    for schedule in schedules:
        yield schedule
        yield from each_of(getattr(schedule, "_schedulers", ()))


def scale_rates(
    optimizers: Iterable[Optimizer], schedules: Iterable[Any], factor: Callable[[dict[str, Any]], float]
) -> None:
    """Multiply all learning rates by the factors of their parameter groups, also in the middle of a schedule."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group |= {key: group[key] * factor(group) for key in GROUP_RATES if key in group}
    for schedule in each_of(schedules):
        if hasattr(schedule, "base_lrs"):
            pairs = zip(schedule.base_lrs, schedule.optimizer.param_groups, strict=True)
            # a rate that was zero has been given to its group
            schedule.base_lrs = [
                rate * factor(group) if rate else group["initial_lr"] for rate, group in pairs
            ]


def add_group(
    optimizer: Optimizer, schedules: Iterable[Any], parameters: list[nn.Parameter], factor: float
) -> None:
    """Train more parameters, at `factor` times the learning rate of the first group, under the same schedules."""
    group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    group |= {key: group[key] * factor for key in (*GROUP_RATES, "factor") if key in group}
    group.pop("name", None)
    optimizer.add_param_group({**group, "params": parameters})
    for schedule in each_of(schedules):
        for name in ("base_lrs", "min_lrs"):  # one rate for each group
            if rates := getattr(schedule, name, None):
                rates.append(rates[0] * factor)
