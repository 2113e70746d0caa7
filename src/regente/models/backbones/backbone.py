"""The interface of backbones, and the loading of their weights."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from regente.errors import CheckpointError, ConfigError, Problem

SHOWN = 3  # names of a list in an error message


@dataclass(frozen=True)
class Preprocessing:
    """The images that the weights were trained on: side in pixels, mean and standard deviation of each channel."""

    size: int | None = None
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)


class Backbone(ABC):
    """A network x [B, ...] -> features [B, D]; `name` is its name in the config."""

    name: str
    preprocessing = Preprocessing()

    @property
    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What the features depend on, architecture and weights, as text; nothing is loaded for it."""

    @abstractmethod
    def skeleton(self) -> nn.Module:
        """The network without its classifier on the device `meta`, which has shapes but no values."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network without its classifier, with its weights, on the CPU.

        Raises:
            CheckpointError: when they are missing, damaged, or of another network.
        """

    def width(self, shape: Collection[int]) -> int:
        """D, the number of features of an input of this shape.

        Raises:
            ConfigError: when the network does not take the shape.
        """
        try:
            with torch.no_grad():
                x = torch.zeros(1, *shape, device="meta")
                return int(self.skeleton().eval()(x).flatten(1).shape[1])
        except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            size = self.preprocessing.size or 224
            what = f"does not take inputs of {list(shape)} ({reason}); data.resolution={size} would be right"
            raise ConfigError([Problem(f"model.backbone={self.name}", what)]) from error


def cut_classifier(network: nn.Module) -> nn.Module:
    """The network, cut before the first dense layer of the child that holds the last dense layer.

    Where no other child has parameters, as in a chain of dense layers, only the last layer is cut.

    Raises:
        ConfigError: when there is no dense layer.
    """
    dense = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not dense:
        what = f"{type(network).__name__} has no dense layer before which it could be cut"
        raise ConfigError([Problem("model.backbone", what)])
    child = dense[-1].partition(".")[0]
    classifier = network.get_submodule(child)
    others = [name for name, _ in network.named_parameters() if not name.startswith(f"{child}.")]
    if others and isinstance(classifier, nn.Sequential):
        setattr(network, child, before_dense(classifier))
    else:
        holder, _, last = dense[-1].rpartition(".")
        setattr(network.get_submodule(holder), last, nn.Identity())
    return network


def before_dense(classifier: nn.Module) -> nn.Module:
    """The layers of a classifier before its first dense layer; none where the classifier is that layer.

    Before a 1x1 convolution as classifier (SqueezeNet) the feature maps are averaged.
    """
    if not isinstance(classifier, nn.Sequential):
        return nn.Identity()
    layers = list(classifier.children())
    first = next(n for n, layer in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d))
    if isinstance(layers[first], nn.Conv2d):
        return nn.Sequential(*layers[:first], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers[:first])


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], where: str, ignored: Iterable[str] = ()
) -> None:
    """Load all weights into a network or none; keys that start with `ignored` belong to removed layers.

    Raises:
        CheckpointError: when keys are missing or unexpected, or a tensor has another shape.
    """
    own = network.state_dict()
    given = {key: value for key, value in state.items() if key in own or not key.startswith(tuple(ignored))}
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
            "name the network of these weights: model.backbone=NAME"
        )
    counters = {
        key: torch.zeros((), dtype=torch.int64) for key in own if key not in given
    }  # num_batches_tracked of old files
    network.load_state_dict({**given, **counters}, assign=True)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
