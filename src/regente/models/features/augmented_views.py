"""Stored features of augmented images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regente.data.core.sources import Batch


@dataclass
class AugmentedViews:
    """Features x [K, N, D] of K augmented views of each sample, and labels y [N]; epoch e takes view e modulo K."""

    x: Tensor
    y: Tensor
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.y)

    def set_epoch(self, epoch: int) -> None:
        """Choose the view."""
        self.epoch = epoch

    def batch(self, index: Tensor) -> Batch:
        return self.x[self.epoch % len(self.x)].index_select(0, index), self.y.index_select(0, index)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y

    def to(self, device: torch.device) -> "AugmentedViews":
        return AugmentedViews(self.x.to(device), self.y.to(device), self.epoch)
