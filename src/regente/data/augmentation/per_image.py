"""Torchvision's transforms, drawn for each image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regente.errors import ConfigError, Problem

OF_BATCHES = ("MixUp", "CutMix")  # they mix images and labels


def per_image(augment: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor] | None:
    """The augmentation; one of torchvision, which would draw once for a whole batch, draws for each image.

    Raises:
        ConfigError: when it mixes images with their labels.
    """
    each = list(augment.modules()) if isinstance(augment, nn.Module) else [augment]
    found = [type(one) for one in each if type(one).__module__.startswith("torchvision.")]
    for kind in found:
        if kind.__name__ in OF_BATCHES:
            raise ConfigError(
                [Problem("data.augment", f"{kind.__name__} changes labels too; it cannot be one")]
            )
    return PerImage(augment) if found else augment


class PerImage:
    """Calls a transform for each image, x [B, C, H, W] float in 0 to 1 -> the same."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, x: Tensor) -> Tensor:
        images = [self.transform(image) for image in x]
        for image in images:
            if image.shape != x.shape[1:] or not image.is_floating_point():
                given = f"{list(image.shape)} {image.dtype} from {list(x.shape[1:])} {x.dtype}"
                what = f"{type(self.transform).__name__} makes {given}; an augmentation keeps shape and type"
                raise ConfigError([Problem("data.augment", what)])
        return torch.stack(images)
