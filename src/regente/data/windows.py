"""Windows over one long stream."""

from dataclasses import dataclass

import torch
from torch import Tensor

from regente.data.batches import Batch


@dataclass(frozen=True)
class Windows:
    """Stretches of a stream [N] of numbers with what comes next, one every `stride` places; none is stored.

    x [B, length] int64; y [B], the number that follows, or with `every_position` [B, length], x shifted by one.
    """

    stream: Tensor
    length: int
    stride: int = 1
    every_position: bool = False

    def __len__(self) -> int:
        return max(0, (len(self.stream) - self.length - 1) // self.stride + 1)

    def take(self, index: Tensor) -> Batch:
        # a view whose rows overlap: index_select copies a row at a time, which a gather by positions does not
        view = self.stream.unfold(0, self.length + 1, self.stride)
        rows = view.index_select(0, index).long()
        return rows[:, :-1], rows[:, 1:] if self.every_position else rows[:, -1]

    @property
    def tensors(self) -> tuple[Tensor]:
        return (self.stream,)

    def to(self, device: torch.device) -> "Windows":
        return Windows(self.stream.to(device), self.length, self.stride, self.every_position)
