"""Parameter groups of an optimizer with settings of their own: `optimizer.groups` and `optimizer.layer_decay`."""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from regente.errors import ConfigError, Problem


class ParameterGroups:
    """Makes an optimizer of parameters in groups. A task calls it in place of the optimizer's class, with parameters.

    Each parameter is in the first group that takes it. `factory`: makes the optimizer; `groups`: by name, the parameters
    (`names`, `dims`) and the settings of each; `layer_decay`: times the learning rate of the layer after it. A group of
    the optimizer has `name`, and `factor`, its learning rate in that of the optimizer.
    """

    def __init__(
        self, factory: Callable[..., Optimizer], groups: dict[str, dict[str, Any]], layer_decay: float | None
    ) -> None:
        self.factory, self.groups, self.layer_decay = factory, groups, layer_decay
        self.others = "others"  # the name of the group of all parameters that no group of the user's takes
        while self.others in groups:
            self.others += "_"
        self.task: nn.Module | None = None  # knows the names of the parameters

    def __call__(self, params: Iterable[Any], **more: Any) -> Optimizer:
        """Make the optimizer of `params`."""
        given = list(params)
        if any(isinstance(each, dict) for each in given):
            raise ConfigError([Problem("optimizer.groups", "the task makes groups itself; leave it out")])
        wanted = {id(each[1] if isinstance(each, tuple) else each) for each in given}
        assert self.task is not None
        named = list(self.task.named_parameters())
        self._require_matches([name for name, _ in named])
        blocks = _blocks(self.task)
        found: dict[tuple[str, int], list[nn.Parameter]] = {}
        for name, parameter in named:
            if id(parameter) in wanted:
                group = next(
                    (key for key, each in self.groups.items() if _takes(each, name, parameter)), self.others
                )
                block = blocks[id(parameter)] if self.layer_decay is not None else 0
                found.setdefault((group, block), []).append(parameter)
        # first the others of the last layer, which have the learning rate of the optimizer
        order = sorted(found, key=lambda each: ([self.others, *self.groups].index(each[0]), -each[1]))
        rows = []
        for group, block in order:
            own = {
                key: each for key, each in self.groups.get(group, {}).items() if key not in ("names", "dims")
            }
            factor = own.pop("lr_factor", 1.0) * (self.layer_decay or 1.0) ** (max(blocks.values()) - block)
            name = group if self.layer_decay is None else f"{group}/{block}"
            rows.append({"params": found[group, block], "name": name, "factor": factor, **own})
        optimizer = self.factory(rows, **more)
        base = optimizer.defaults["lr"]
        for row in optimizer.param_groups:
            row["lr"] *= row["factor"]
            row["factor"] = row["lr"] / base if base else row["factor"]
        return optimizer

    def _require_matches(self, names: list[str]) -> None:
        for group, node in self.groups.items():
            for pattern in _patterns(node):
                if not any(_matches(pattern, name) for name in names):
                    what = f"matches none of the parameters, such as {names[0]} and {names[-1]}"
                    raise ConfigError([Problem(f"optimizer.groups.{group}.names={pattern}", what)])


def _patterns(node: dict[str, Any]) -> list[str]:
    patterns = node.get("names", [])
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _matches(pattern: str, name: str) -> bool:
    """Whether the pattern is of the whole name, or of its end behind a dot."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _takes(node: dict[str, Any], name: str, parameter: nn.Parameter) -> bool:
    patterns, dims = _patterns(node), node.get("dims")
    return (not patterns or any(_matches(each, name) for each in patterns)) and (
        dims is None or parameter.ndim <= dims
    )


def _blocks(task: nn.Module) -> dict[int, int]:
    """The number of the layer of each parameter, from the inputs on; those outside of layers have that of the first."""
    numbers: dict[int, int] = {}
    layers = [layer for layer in _layers(task) if next(layer.parameters(), None) is not None]
    for number, layer in enumerate(layers):
        numbers |= {id(each): number for each in layer.parameters()} | numbers
    for parameter in task.parameters():
        numbers.setdefault(id(parameter), 0)
    return numbers


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The elements of the lists of layers in a module, and what stands beside these lists."""
    for child in module.children():
        inside = any(isinstance(each, nn.Sequential | nn.ModuleList) for each in child.modules())
        element = isinstance(module, nn.Sequential | nn.ModuleList)
        if inside and (not element or isinstance(child, nn.Sequential | nn.ModuleList)):
            yield from _layers(child)
        else:
            yield child
