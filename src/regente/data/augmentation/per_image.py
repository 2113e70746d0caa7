"""Torchvision's transforms, drawn for each image."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from regente.errors import ConfigError, Problem

OF_BATCHES = ("MixUp", "CutMix")  # they mix images and labels


def per_image(augment: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    """The augmentation; one of torchvision, which would draw once for a whole batch, draws for each image.

    Those in an `nn.Sequential` do too; a module of the user's own gets the batch, whatever it holds.

    Raises:
        ConfigError: when it mixes images with their labels.
    """
    if type(augment) is nn.Sequential:
        steps: list[Any] = [per_image(each) for each in augment]
        return nn.Sequential(*steps)
    if not type(augment).__module__.startswith("torchvision."):
        return augment
    for name in (type(each).__name__ for each in _with_inner(augment)):
        if name in OF_BATCHES:
            raise ConfigError([Problem("data.augment", f"{name} changes labels too; it cannot be one")])
    return PerImage(augment)


def _with_inner(transform: Any) -> Iterator[Any]:
    """A transform and those that it is composed of."""
    yield transform
    inner = transform.children() if isinstance(transform, nn.Module) else ()
    for each in (*getattr(transform, "transforms", ()), *inner):
        yield from _with_inner(each)


class PerImage(nn.Module):
    """Calls a transform for each image, x [B, C, H, W] float in 0 to 1 -> the same."""

    def __init__(self, transform: Any) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        images = [self.transform(image) for image in x]
        for image in images:
            if image.shape != x.shape[1:] or not image.is_floating_point():
                given = f"{list(image.shape)} {image.dtype} from {list(x.shape[1:])} {x.dtype}"
                what = f"{type(self.transform).__name__} makes {given}; an augmentation keeps shape and type"
                raise ConfigError([Problem("data.augment", what)])
        return torch.stack(images)
