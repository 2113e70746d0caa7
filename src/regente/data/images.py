"""Images with one label each."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from regente.data.batches import Batch
from regente.data.in_memory import InMemory
from regente.errors import ConfigError, DataError, Problem


class Images(InMemory):
    """Images as uint8 [N, C, H, W], augmented and normalised on the device; a subclass reads them in `read`.

    `augment` takes x [B, C, H, W] float in 0 to 1 and gives the same shape, with parameters of its own for each image.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Ge(1)],
        num_classes: Annotated[int, Ge(2)],
        input_shape: list[Annotated[int, Ge(1)]],
        class_names: list[str] | None,
        mean: list[float],
        std: list[Annotated[float, Gt(0)]],
        augment: Callable[[Tensor], Tensor] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.num_classes, self.input_shape, self.class_names = num_classes, list(input_shape), class_names
        self.mean, self.std, self.augment = mean, std, augment

    def verify(self, splits: Mapping[str, Any]) -> None:
        for name, split in splits.items():
            if len(split) == 0:
                raise DataError(f"{type(self).__name__}: the {name} split is empty")
            if (shape := list(split.take(torch.tensor([0]))[0].shape[1:])) != self.input_shape:
                what = f"{self.input_shape}, but images are {shape}"
                raise ConfigError([Problem("data.input_shape", what)])
            if (largest := int(split.y.max())) >= self.num_classes:
                raise ConfigError(
                    [Problem("data.num_classes", f"{self.num_classes}, but a label is {largest}")]
                )
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            what = f"{len(self.class_names)} names, {self.num_classes} classes"
            raise ConfigError([Problem("data.class_names", what)])

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: uint8 to float32, augmented in training, declared mean and standard deviation taken out."""
        x, y = batch
        return self.normalise(x), y

    def normalise(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] uint8 -> (x / 255 - mean) / std, float32."""
        mean, std = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return x.float().mul_(1 / (255 * std)).sub_(mean / std)
