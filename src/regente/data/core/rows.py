"""Splits that share one tensor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regente.data.core.batches import Batch, Split


@dataclass(frozen=True)
class Rows:
    """A split of samples [M, ...] that others share, mapped from a file or not: its rows [N] int64, and labels y [N]."""

    shared: Tensor
    rows: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor) -> Batch:
        return self.shared.index_select(0, self.rows.index_select(0, index)), self.y.index_select(0, index)

    @property
    def x(self) -> Tensor:
        """The split's own samples [N, ...], a copy."""
        return self.shared.index_select(0, self.rows)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.shared, self.rows, self.y

    def to(self, device: torch.device) -> Split:
        return Split(self.x.to(device), self.y.to(device))
