"""What a split is made of: samples by number."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


class Source(Protocol):
    """Samples by number."""

    def __len__(self) -> int:
        """The number of samples."""

    def batch(self, index: Tensor) -> Batch:
        """Inputs and labels of these samples; index [B] int64 on the device of the tensors."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All tensors that the samples come from, labels last: they are hashed, and they move to a device."""

    def to(self, device: torch.device) -> "Source":
        """The same on a device."""


@runtime_checkable
class EpochDependent(Protocol):
    """A source whose samples differ from epoch to epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""


@dataclass(frozen=True)
class Split:
    """Inputs x [N, ...] and labels y [N] or [N, ...]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor) -> Batch:
        # index_select: about nine times faster than x[index] for small rows
        return self.x.index_select(0, index), self.y.index_select(0, index)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        return self.x, self.y

    def to(self, device: torch.device) -> "Split":
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class IndexedSplit:
    """Rows [N] int64 of samples [M, ...] that several splits share, memory-mapped or not, and labels y [N]."""

    shared: Tensor
    rows: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor) -> Batch:
        return self.shared.index_select(0, self.rows.index_select(0, index)), self.y.index_select(0, index)

    @property
    def x(self) -> Tensor:
        """The samples of this split [N, ...], a copy."""
        return self.shared.index_select(0, self.rows)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.shared, self.rows, self.y

    def to(self, device: torch.device) -> Split:
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Windows:
    """Windows over a stream [N] int64 with the number that follows, one every `stride` places; no window is stored.

    x [B, length]; y [B], the next number, or with `every_position` y [B, length], which is x shifted by one.
    """

    stream: Tensor
    length: int
    stride: int = 1
    every_position: bool = False

    def __len__(self) -> int:
        return max(0, (len(self.stream) - self.length - 1) // self.stride + 1)

    def batch(self, index: Tensor) -> Batch:
        # index_select copies a row at a time: four times as fast as a gather by positions
        rows = self.rows.index_select(0, index)
        x = rows.narrow(1, 0, self.length)
        return x, rows.narrow(1, 1, self.length) if self.every_position else rows.select(1, self.length)

    @cached_property
    def rows(self) -> Tensor:
        """Each window with the number that follows, [len(self), length + 1]: a view, whose rows overlap."""
        return self.stream.unfold(0, self.length + 1, self.stride)

    @property
    def tensors(self) -> tuple[Tensor]:
        return (self.stream,)

    def to(self, device: torch.device) -> "Windows":
        return Windows(self.stream.to(device), self.length, self.stride, self.every_position)
