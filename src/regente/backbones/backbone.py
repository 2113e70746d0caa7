"""What a backbone is, wherever it comes from."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from regente.errors import CheckpointError, ConfigError, Problem

SHOWN = 3  # names of a longer list


@dataclass(frozen=True)
class Preprocessing:
    """How the images were made that the weights were trained on: side in pixels, mean and standard deviation."""

    size: int | None = None
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)


class Backbone(ABC):
    """A network that turns x [B, C, H, W] into features [B, D]; `name` is what the config calls it."""

    name: str
    preprocessing = Preprocessing()

    @property
    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What its features depend on: architecture, cut and weights; cheap to tell, nothing is loaded for it."""

    @abstractmethod
    def skeleton(self) -> nn.Module:
        """The network cut before its classifier, on the device `meta`: shapes without numbers."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The same with its weights, on the CPU.

        Raises:
            CheckpointError: when they are missing, damaged, or of another network.
        """

    def width(self, shape: Collection[int]) -> int:
        """How many features an input of this shape has.

        Raises:
            ConfigError: when the network does not take the shape.
        """
        try:
            with torch.no_grad():
                return flat(self.skeleton().eval()(torch.zeros(1, *shape, device="meta"))).shape[1]
        except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            size = self.preprocessing.size or 224
            what = f"does not take inputs of {list(shape)} ({reason}); data.resolution={size} would be right"
            raise ConfigError([Problem(f"model.backbone={self.name}", what)]) from error


def flat(features: Tensor) -> Tensor:
    """Features [B, D] of what comes out of a network that was cut; of maps that were to be averaged, the average."""
    return features.flatten(1)


def cut_last_linear(network: nn.Module) -> nn.Module:
    """The network with its last dense layer taken out.

    Raises:
        ConfigError: when it has none.
    """
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        what = f"{type(network).__name__} has no dense layer to be cut before"
        raise ConfigError([Problem("model.backbone", what)])
    holder, _, last = layers[-1].rpartition(".")
    setattr(network.get_submodule(holder), last, nn.Identity())
    return network


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str, spare: Iterable[str] = ()) -> None:
    """Put weights into a network, whole or not at all; keys that begin with `spare` were cut off.

    Raises:
        CheckpointError: when keys are missing or left over, or a tensor has another shape.
    """
    own = network.state_dict()
    given = {key: value for key, value in state.items() if key in own or not key.startswith(tuple(spare))}
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    extra = [key for key in given if key not in own]
    shapes = [
        f"{key} is {list(given[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    faults = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (("missing", missing), ("left over", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise CheckpointError(
            f"{where}: not the weights of this network; tensors {'; '.join(faults)}; "
            "name the network that they are of: model.backbone=NAME"
        )
    counters = {
        key: torch.zeros((), dtype=torch.int64) for key in own if key not in given
    }  # num_batches_tracked of old files
    network.load_state_dict({**given, **counters}, assign=True)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
